"""Remakes, from the sprites alone, all weights of the pictogram world that are shipped."""

from safetydpo_kedro.pipelines.pictogram_pretraining.pipeline import create_pipeline

__all__ = ["create_pipeline"]
