"""The merged LoRA in the forms in which other programs take it; not in the default run."""

from safetydpo_kedro.pipelines.export.pipeline import create_pipeline

__all__ = ["create_pipeline"]
