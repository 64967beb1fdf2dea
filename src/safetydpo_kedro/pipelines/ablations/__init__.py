"""What each choice of recipe and merging does, with seeds and spread; not in the default run."""

from safetydpo_kedro.pipelines.ablations.pipeline import create_pipeline

__all__ = ["create_pipeline"]
