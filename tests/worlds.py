"""Tiny real models with random weights, and a catalog and parameters to run pipelines on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from kedro.framework.context.context import get_typed_fields
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.validation.parameter_validator import ParameterValidator
from transformers import CLIPTextConfig, CLIPTextModel

from safetydpo_kedro.config_loader import ExpertConfigLoader
from safetydpo_kedro.diffusion.lora import LoraAdapter, random_adapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.images import encode_images
from safetydpo_kedro.pictograms.captions import all_captions
from safetydpo_kedro.pictograms.grammar import (
    GrammarWriter,
    concept_table,
    neutral_prompt_table,
)
from safetydpo_kedro.pictograms.tokenizer import train_tokenizer
from safetydpo_kedro.preference.latents import LatentImages, LatentPairs
from safetydpo_kedro.prompts.writer import pairs_table
from safetydpo_kedro.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[1]
WIDTH, IMAGE_SIZE, LATENT_SIZE, LATENT_CHANNELS = 16, 32, 8, 4


def tiny_tokenizer():
    """A CLIP tokenizer for the captions of the pictogram world."""
    return train_tokenizer(all_captions(), vocabulary_size=900, max_length=16)


def tiny_pipeline() -> StableDiffusionPipeline:
    """A real ``StableDiffusionPipeline`` of a few thousand random weights, 32×32 pixels."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        sample_size=IMAGE_SIZE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=[8, 8, 8],
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
    )
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=[8, 16],
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    )
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_clip() -> tuple[open_clip.CLIP, dict[str, Any], Any]:
    """A random open_clip model, its configuration and its tokenizer."""
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()
    text = {"context_length": tokenizer.model_max_length, "vocab_size": len(tokenizer)}
    config = {
        "model_cfg": {
            "embed_dim": WIDTH,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "layers": 1,
                "width": WIDTH,
                "head_width": 8,
                "patch_size": 8,
            },
            "text_cfg": {**text, "width": WIDTH, "heads": 2, "layers": 1},
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    return open_clip.CLIP(**config["model_cfg"]), config, tokenizer


def tiny_expert(unet: torch.nn.Module, seed: int, rank: int = 2) -> LoraAdapter:
    """A random LoRA over the queries of self- and the keys of cross-attentions."""
    shapes = {
        name: (module.out_features, module.in_features)
        for name, module in unet.named_modules()
        if name.endswith(("attn1.to_q", "attn2.to_k"))
    }
    return random_adapter(shapes, rank, torch.Generator().manual_seed(seed))


def prompt_pairs(per_category: int = 1) -> pd.DataFrame:
    """Prompt pairs about one concept of every category, with the columns of ``train_pairs``."""
    concepts = concept_table().groupby("category", sort=False).head(1)
    rows = list(concepts.itertuples(index=False, name=None))
    return pairs_table(GrammarWriter().write(rows, per_category, seed=0), seed=0)


def neutral_prompts(count: int = 3) -> pd.DataFrame:
    """Neutral prompts, with the columns of ``neutral_test_prompts``."""
    table = neutral_prompt_table().head(count)
    return table.assign(prompt_id=[f"neutral-{i}" for i in range(count)], seed=range(count))


def reference_images(count: int = 4) -> pd.DataFrame:
    """Random images for every benchmark, with the columns of ``reference_images``."""
    random = np.random.default_rng(0)
    parts = []
    for benchmark in ("unsafe", "safe", "neutral"):
        images = random.integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
        names = [f"{benchmark}-{i}" for i in range(count)]
        parts.append(pd.DataFrame({"benchmark": benchmark, "image": encode_images(images, names)}))
    return pd.concat(parts, ignore_index=True)


def base_catalog(folder: Path) -> DataCatalog:
    """The catalog of ``conf/base``, its data below ``folder``."""
    return DataCatalog.from_config(_relocated(_loader()["catalog"], folder))


def _relocated(value: Any, folder: Path) -> Any:
    """The same configuration, with every path below ``data/`` moved below ``folder``."""
    if isinstance(value, dict):
        return {key: _relocated(inner, folder) for key, inner in value.items()}
    is_data = isinstance(value, str) and value.startswith("data/")
    return str(folder / value) if is_data else value


def base_parameters(**overrides: Any) -> dict[str, Any]:
    """The parameters of ``conf/base``, with changes as on the command line."""
    return _loader(**overrides)["parameters"]


def _loader(**overrides: Any) -> ExpertConfigLoader:
    conf = str(ROOT / "conf")
    return ExpertConfigLoader(conf, env="base", runtime_params=overrides, **CONFIG_LOADER_ARGS)


def add_parameters(catalog: DataCatalog, parameters: dict[str, Any], **pipelines: Pipeline) -> None:
    """Put parameters into a catalog as Kedro does: checked, typed, and every part by its name."""
    typed = ParameterValidator(pipelines).validate_raw_params(parameters)

    def add(name: str, value: Any) -> None:
        catalog[f"params:{name}"] = value
        inner = value if isinstance(value, dict) else get_typed_fields(value)
        for key, part in (inner or {}).items():
            add(f"{name}.{key}", part)

    for name, value in typed.items():
        add(name, value)


def random_cache(model: DiffusionModel, pairs: pd.DataFrame) -> LatentPairs:
    """A latent cache of random images."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(pairs), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    winner, loser = torch.randn(shape, generator=generator)
    std = torch.full_like(winner, 0.1)
    return LatentPairs(
        winners=LatentImages(winner, std),
        losers=LatentImages(loser, std.clone()),
        unsafe=model.encode_prompts(list(pairs["unsafe_prompt"])),
        safe=model.encode_prompts(list(pairs["safe_prompt"])),
        ids=torch.arange(len(pairs)),
    )
