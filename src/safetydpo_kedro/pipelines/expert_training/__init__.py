"""One safety expert per category of harm, and one trained on all of them."""

from safetydpo_kedro.pipelines.expert_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
