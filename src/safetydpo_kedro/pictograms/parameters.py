"""Typed parameters of the pictogram world's pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from safetydpo_kedro.parameters import SamplingParameters, Strict


class OptimizationParameters(Strict):
    """One AdamW run with linear warmup and cosine decay."""

    seed: int = 0
    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    checkpoint_every: int = Field(200, gt=0)


class TokenizerParameters(Strict):
    """Byte-pair encoding over the captions."""

    vocabulary_size: int = Field(1200, gt=514)
    max_length: int = Field(16, gt=2)


class ClipParameters(Strict):
    """Shape (an open_clip ``model_cfg`` without the tokenizer) and training of the CLIP."""

    embed_dim: int
    vision_cfg: dict[str, int]
    text_cfg: dict[str, int]
    theme_share: float = Field(0.0, ge=0, lt=1, description="captions that tell the theme")
    optimization: OptimizationParameters


class VaeParameters(Strict):
    """Shape (arguments of ``AutoencoderKL``) and training of the autoencoder."""

    shape: dict[str, Any]
    kl_weight: float = Field(ge=0)
    whitening_images: int = Field(gt=0)
    optimization: OptimizationParameters


class UnetParameters(Strict):
    """Shape (arguments of ``UNet2DConditionModel``) and training of the UNet."""

    shape: dict[str, Any]
    images: int = Field(gt=0, description="pictures whose latents are cached for training")
    caption_dropout: float = Field(ge=0, le=1)
    min_snr_gamma: float = Field(gt=0)
    ema_decay: float = Field(gt=0, lt=1)
    optimization: OptimizationParameters


class ClassifierParameters(Strict):
    """The independent classifier: channels per stage, share of junk images, training."""

    channels: list[int]
    junk_share: float = Field(ge=0, lt=1)
    optimization: OptimizationParameters


class Q16Parameters(Strict):
    """Prompt tuning of the Q16-style judge."""

    seed: int
    images: int = Field(gt=0)
    steps: int = Field(gt=0)
    learning_rate: float = Field(gt=0)


class ReferenceParameters(Strict):
    """Real pictograms for FID."""

    seed: int
    images: int = Field(gt=0, description="per benchmark")


class CheckParameters(Strict):
    """The final check of the world."""

    seed: int
    images_per_name: int = Field(gt=0)
    sampling: SamplingParameters


class PretrainingParameters(Strict):
    """Everything that ``pictogram_pretraining`` needs."""

    checkpoint_directory: Path
    tokenizer: TokenizerParameters
    clip: ClipParameters
    judge_clip: ClipParameters
    vae: VaeParameters
    unet: UnetParameters
    classifier: ClassifierParameters
    q16: Q16Parameters
    reference: ReferenceParameters
    check: CheckParameters
