"""Somebody else's models, judged on published prompts: no data or experts of ours are needed."""

from safetydpo_kedro.pipelines.scoring.pipeline import create_pipeline

__all__ = ["create_pipeline"]
