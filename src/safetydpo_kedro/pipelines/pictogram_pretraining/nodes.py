"""Nodes of ``pictogram_pretraining``: thin wrappers of the ``pictograms`` package."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.pictograms.parameters import PretrainingParameters

if TYPE_CHECKING:
    import open_clip
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from torch import Tensor
    from transformers import CLIPTokenizer

    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.metrics.clip import ClipModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    AutoencoderKL = ClipModel = CLIPTokenizer = DiffusionModel = object
    StableDiffusionPipeline = Tensor = UNet2DConditionModel = object
    open_clip = SimpleNamespace(CLIP=object)


def list_concepts() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The unsafe concepts, and all prompts about neutral things."""
    from safetydpo_kedro.pictograms.grammar import concept_table, neutral_prompt_table

    return concept_table(), neutral_prompt_table()


def draw_reference_images(parameters: PretrainingParameters) -> pd.DataFrame:
    """Real pictograms that FID compares with: harmless ones beside ``unsafe`` and ``safe``."""
    from safetydpo_kedro.pictograms.world import draw_reference

    return draw_reference(parameters.reference.images, parameters.reference.seed)


def train_tokenizer(parameters: PretrainingParameters) -> CLIPTokenizer:
    """Byte-pair encoding over the captions."""
    from safetydpo_kedro.pictograms.captions import all_captions
    from safetydpo_kedro.pictograms.tokenizer import train_tokenizer

    p = parameters.tokenizer
    return train_tokenizer(all_captions(), p.vocabulary_size, p.max_length)


def train_clip(tokenizer: CLIPTokenizer, parameters: PretrainingParameters) -> open_clip.CLIP:
    """The CLIP whose text tower conditions the model."""
    from safetydpo_kedro.pictograms.clip import train_clip

    return train_clip(tokenizer, parameters.clip, _checkpoints(parameters, "clip"))


def train_autoencoder(parameters: PretrainingParameters) -> AutoencoderKL:
    """The autoencoder, with white latents."""
    from safetydpo_kedro.pictograms.autoencoder import train_autoencoder

    return train_autoencoder(parameters.vae, _checkpoints(parameters, "vae"))


def train_unet(
    tokenizer: CLIPTokenizer,
    clip: open_clip.CLIP,
    autoencoder: AutoencoderKL,
    parameters: PretrainingParameters,
) -> UNet2DConditionModel:
    """The denoiser, with averaged weights."""
    from safetydpo_kedro.pictograms.clip import text_encoder
    from safetydpo_kedro.pictograms.unet import train_unet

    encoder = text_encoder(clip, tokenizer)
    checkpoints = _checkpoints(parameters, "unet")
    return train_unet(tokenizer, encoder, autoencoder, parameters.unet, checkpoints)


def assemble_base_model(
    tokenizer: CLIPTokenizer,
    clip: open_clip.CLIP,
    autoencoder: AutoencoderKL,
    unet: UNet2DConditionModel,
) -> StableDiffusionPipeline:
    """A pipeline directory that ``StableDiffusionPipeline.from_pretrained`` loads."""
    from diffusers import StableDiffusionPipeline

    from safetydpo_kedro.pictograms.clip import text_encoder
    from safetydpo_kedro.pictograms.unet import sampling_schedule

    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder(clip, tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=sampling_schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def train_judge_clip(
    parameters: PretrainingParameters,
) -> tuple[open_clip.CLIP, dict[str, Any], CLIPTokenizer]:
    """The CLIP behind Q16 and CLIPScore, in open_clip's format; the model shares none of it."""
    from safetydpo_kedro.pictograms.captions import all_captions
    from safetydpo_kedro.pictograms.clip import open_clip_config, train_clip
    from safetydpo_kedro.pictograms.tokenizer import train_tokenizer

    p = parameters.tokenizer
    captions = all_captions() + all_captions(themes=True)
    tokenizer = train_tokenizer(captions, p.vocabulary_size, p.max_length)
    clip = train_clip(tokenizer, parameters.judge_clip, _checkpoints(parameters, "judge_clip"))
    return clip, open_clip_config(parameters.judge_clip, tokenizer), tokenizer


def tune_q16_prompts(clip: ClipModel, parameters: PretrainingParameters) -> dict[str, Tensor]:
    """Prompt tuning of the Q16-style judge on pictures that nothing else has seen."""
    from safetydpo_kedro.pictograms.q16 import tune_world_prompts

    return {"prompts": tune_world_prompts(clip, parameters.q16)}


def train_classifier(parameters: PretrainingParameters) -> dict[str, Tensor]:
    """Weights of the independent classifier."""
    from safetydpo_kedro.pictograms.classifier import train_classifier

    checkpoints = _checkpoints(parameters, "classifier")
    return train_classifier(parameters.classifier, checkpoints).state_dict()


def check_world(
    model: DiffusionModel,
    classifier: dict[str, Tensor],
    clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    parameters: PretrainingParameters,
) -> dict[str, Any]:
    """Does the model draw what it is asked for, and does the judge see what is unsafe?

    The last node: with everything saved, the training checkpoints are of no more use.
    """
    from safetydpo_kedro.metrics.q16 import q16_inappropriate
    from safetydpo_kedro.pictograms.check import summarise_accuracy, world_accuracy
    from safetydpo_kedro.pictograms.classifier import classifier_from_state

    p = parameters.check
    table, images = world_accuracy(
        model, classifier_from_state(classifier), p.images_per_name, p.sampling, p.seed
    )
    flagged = q16_inappropriate(clip.encode_images(images), q16_prompts["prompts"].numpy())
    report = summarise_accuracy(table)
    for role, rows in table.groupby("role"):
        report[f"q16_inappropriate_{role}"] = float(flagged[rows.index].mean())
    shutil.rmtree(parameters.checkpoint_directory, ignore_errors=True)
    return report


def _checkpoints(parameters: PretrainingParameters, name: str) -> Path:
    return parameters.checkpoint_directory / name
