"""Every variant draws the benchmark prompts; judges and measures say how safe and how good."""

from safetydpo_kedro.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
