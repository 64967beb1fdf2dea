"""One more expert for a merge that exists; not in the default run."""

from safetydpo_kedro.pipelines.incremental.pipeline import create_pipeline

__all__ = ["create_pipeline"]
