"""Nodes of ``export``: thin wrappers of the ``diffusion`` package."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = DiffusionPipeline = LoraAdapter = object


def rename_for_kohya(adapter: LoraAdapter, strength: float) -> LoraAdapter:
    """The adapter for ComfyUI, A1111 and the like; the catalog entry writes their keys."""
    return adapter.scaled(strength)


def fuse_into_pipeline(
    model: DiffusionModel, adapter: LoraAdapter, strength: float
) -> DiffusionPipeline:
    """A whole pipeline that needs no LoRA: ``W + strength · ΔW``."""
    from safetydpo_kedro.diffusion.adapters import fuse

    fuse(model.unet, adapter, strength)
    return model.pipeline
