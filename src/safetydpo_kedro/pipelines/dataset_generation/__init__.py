"""Prompt pairs, the images that the model draws for them, and their cached latents."""

from safetydpo_kedro.pipelines.dataset_generation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
