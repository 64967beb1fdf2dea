"""The published architectures of Stable Diffusion 1.5, 2.1 and XL, with random weights.

Configurations are those of the published model directories. Full size they stand in for the real
models in benchmarks of memory and speed, which do not depend on the values of the weights. Narrow
(``tiny=True``) they have the same parts, layers and settings in fewer channels, and let the tests
run each family's pipelines on a CPU in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from safetydpo_kedro.pictograms.captions import all_captions
from safetydpo_kedro.pictograms.tokenizer import train_tokenizer

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
OPEN_CLIP_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
SD_BLOCKS = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SDXL_BLOCKS = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
}
TINY = {"unet": 16, "text": 16, "vae": 8, "groups": 4, "resolution": 64, "time": 8}


@dataclass(frozen=True)
class Architecture:
    """One family as it is published.

    Attributes:
        pipeline: class of the pipeline.
        resolution: side of its images in pixels.
        unet: configuration of the denoiser.
        vae: configuration of the autoencoder.
        text_encoders: configurations, one or two.
        scheduler: class and settings of the sampler.
    """

    pipeline: type[DiffusionPipeline]
    resolution: int
    unet: dict[str, Any]
    vae: dict[str, Any]
    text_encoders: tuple[dict[str, Any], ...]
    scheduler: tuple[type, dict[str, Any]]


ARCHITECTURES = {
    "sd15": Architecture(
        StableDiffusionPipeline,
        resolution=512,
        unet={**SD_BLOCKS, "cross_attention_dim": 768, "attention_head_dim": 8},
        vae={"scaling_factor": 0.18215},
        text_encoders=(CLIP_L,),
        scheduler=(PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    ),
    "sd21": Architecture(
        StableDiffusionPipeline,
        resolution=768,
        unet={
            **SD_BLOCKS,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        vae={"scaling_factor": 0.18215},
        text_encoders=(OPEN_CLIP_H,),
        scheduler=(
            DDIMScheduler,
            {
                "clip_sample": False,
                "set_alpha_to_one": False,
                "prediction_type": "v_prediction",
            },
        ),
    ),
    "sdxl": Architecture(
        StableDiffusionXLPipeline,
        resolution=1024,
        unet={
            **SDXL_BLOCKS,
            "cross_attention_dim": 2048,
            "attention_head_dim": [5, 10, 20],
            "transformer_layers_per_block": [1, 2, 10],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        vae={"scaling_factor": 0.13025, "force_upcast": True},
        text_encoders=(CLIP_L, OPEN_CLIP_BIG_G),
        scheduler=(EulerDiscreteScheduler, {"timestep_spacing": "leading"}),
    ),
}


def narrow(architecture: Architecture) -> Architecture:
    """The same parts and layers in few channels, for images of 64 pixels."""
    width, encoders = TINY["unet"], len(architecture.text_encoders)
    unet = dict(architecture.unet)
    blocks = len(unet["block_out_channels"])
    unet["block_out_channels"] = [width // 2, *[width] * (blocks - 1)]
    unet["attention_head_dim"] = 2
    unet["norm_num_groups"] = TINY["groups"]
    unet["cross_attention_dim"] = encoders * TINY["text"]
    if "transformer_layers_per_block" in unet:
        unet["transformer_layers_per_block"] = [1, 1, 2]
        unet["addition_time_embed_dim"] = TINY["time"]
        unet["projection_class_embeddings_input_dim"] = TINY["text"] + 6 * TINY["time"]
    text = {
        "hidden_size": TINY["text"],
        "intermediate_size": 2 * TINY["text"],
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": TINY["text"],
    }
    vae = {
        **architecture.vae,
        "block_out_channels": [TINY["vae"]] * 4,
        "norm_num_groups": TINY["groups"],
        "layers_per_block": 1,
    }
    return Architecture(
        architecture.pipeline,
        TINY["resolution"],
        unet,
        vae,
        tuple({**config, **text} for config in architecture.text_encoders),
        architecture.scheduler,
    )


def random_unet(architecture: Architecture) -> UNet2DConditionModel:
    """The denoiser."""
    return UNet2DConditionModel(sample_size=architecture.resolution // 8, **architecture.unet)


def random_vae(architecture: Architecture) -> AutoencoderKL:
    """The autoencoder."""
    blocks = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
    }
    return AutoencoderKL(sample_size=architecture.resolution, **{**blocks, **architecture.vae})


def random_text_encoders(architecture: Architecture) -> list[CLIPTextModel]:
    """One or two text encoders; SDXL's second one has a projection."""
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    # Legacy values of the published configurations: the end of a prompt is its largest token id.
    tokens = {"vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    return [
        kind(CLIPTextConfig(max_position_embeddings=77, **tokens, **config))
        for kind, config in zip(kinds, architecture.text_encoders, strict=False)
    ]


def random_pipeline(family: str, tiny: bool = False, seed: int = 0) -> DiffusionPipeline:
    """A complete pipeline with random weights and a tokenizer trained on pictogram captions.

    Args:
        family: ``sd15``, ``sd21`` or ``sdxl``.
        tiny: narrow, for images of 64 pixels.
        seed: of the weights.
    """
    architecture = ARCHITECTURES[family]
    if tiny:
        architecture = narrow(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae = random_unet(architecture), random_vae(architecture)
        encoders = random_text_encoders(architecture)
    kind, settings = architecture.scheduler
    parts: dict[str, Any] = {"unet": unet, "vae": vae, "scheduler": kind(**NOISE, **settings)}
    for number, encoder in enumerate(encoders):
        suffix = f"_{number + 1}" if number else ""
        parts[f"text_encoder{suffix}"] = encoder
        parts[f"tokenizer{suffix}"] = train_tokenizer(all_captions(), 900, 77)
    if len(encoders) == 1:
        nothing = {"safety_checker": None, "feature_extractor": None}
        return architecture.pipeline(**parts, **nothing, requires_safety_checker=False)
    return architecture.pipeline(**parts, add_watermarker=False)
