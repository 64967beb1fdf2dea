"""Typed parameters of the pictogram world's pretraining."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from safetydpo_kedro.parameters import SamplingParameters, Strict
from safetydpo_kedro.storage import LocalPath


class OptimizationParameters(Strict):
    """One AdamW run with linear warmup and cosine decay."""

    seed: int = Field(0, description="of first weights, pictures and noise")
    steps: int = Field(gt=0, description="optimizer steps")
    batch_size: int = Field(gt=0, description="pictures of a step")
    learning_rate: float = Field(gt=0, description="the highest of the schedule")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    warmup_steps: int = Field(100, ge=0, description="steps in which the learning rate rises")
    max_gradient_norm: float = Field(1.0, gt=0, description="longer gradients are cut to it")
    checkpoint_every: int = Field(200, gt=0, description="steps between two checkpoints")


class TokenizerParameters(Strict):
    """Byte-pair encoding over the captions."""

    vocabulary_size: int = Field(1200, gt=514, description="tokens, at most")
    max_length: int = Field(16, gt=2, description="tokens of a caption, with start and end")


class ClipParameters(Strict):
    """Shape (an open_clip ``model_cfg`` without the tokenizer) and training of the CLIP."""

    embed_dim: int = Field(description="width of the common space")
    vision_cfg: dict[str, int] = Field(description="image tower, as open_clip has it")
    text_cfg: dict[str, int] = Field(description="text tower, as open_clip has it")
    theme_share: float = Field(0.0, ge=0, lt=1, description="captions that tell the theme")
    optimization: OptimizationParameters


class VaeParameters(Strict):
    """Shape (arguments of ``AutoencoderKL``) and training of the autoencoder."""

    shape: dict[str, Any] = Field(description="arguments of AutoencoderKL")
    kl_weight: float = Field(ge=0, description="weight of the divergence from a standard normal")
    whitening_images: int = Field(gt=0, description="pictures that whiten the latents")
    optimization: OptimizationParameters


class UnetParameters(Strict):
    """Shape (arguments of ``UNet2DConditionModel``) and training of the UNet."""

    shape: dict[str, Any] = Field(description="arguments of UNet2DConditionModel")
    images: int = Field(gt=0, description="pictures whose latents are cached for training")
    caption_dropout: float = Field(ge=0, le=1, description="share of captions emptied")
    min_snr_gamma: float = Field(gt=0, description="errors are weighed by min(SNR, γ)")
    ema_decay: float = Field(gt=0, lt=1, description="of the moving average of the weights")
    optimization: OptimizationParameters


class ClassifierParameters(Strict):
    """The independent classifier: channels per stage, share of junk images, training."""

    channels: list[int] = Field(description="of each stage")
    junk_share: float = Field(ge=0, lt=1, description="pictures of the junk class in a batch")
    optimization: OptimizationParameters


class Q16Parameters(Strict):
    """Prompt tuning of the Q16-style judge."""

    seed: int = Field(description="of pictures and tuning")
    images: int = Field(gt=0, description="pictures that the prompts are tuned on")
    steps: int = Field(gt=0, description="optimizer steps")
    learning_rate: float = Field(gt=0, description="of Adam")


class ReferenceParameters(Strict):
    """Real pictograms for FID."""

    seed: int = Field(description="of the pictures")
    images: int = Field(gt=0, description="per benchmark")


class CheckParameters(Strict):
    """The final check of the world."""

    seed: int = Field(description="of the drawn images")
    images_per_name: int = Field(gt=0, description="images drawn of each name")
    sampling: SamplingParameters


class PretrainingParameters(Strict):
    """Everything that ``pictogram_pretraining`` needs."""

    checkpoint_directory: LocalPath = Field(description="where a training that is cut off goes on")
    tokenizer: TokenizerParameters
    clip: ClipParameters
    judge_clip: ClipParameters
    vae: VaeParameters
    unet: UnetParameters
    classifier: ClassifierParameters
    q16: Q16Parameters
    reference: ReferenceParameters
    check: CheckParameters
