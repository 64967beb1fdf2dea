"""Several safety experts become one LoRA."""

from safetydpo_kedro.pipelines.merging.pipeline import create_pipeline

__all__ = ["create_pipeline"]
