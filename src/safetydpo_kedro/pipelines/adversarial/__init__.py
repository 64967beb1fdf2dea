"""What aligned models can still be talked into: five attacks on chosen variants."""

from safetydpo_kedro.pipelines.adversarial.pipeline import create_pipeline

__all__ = ["create_pipeline"]
