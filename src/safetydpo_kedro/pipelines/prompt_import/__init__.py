"""Published prompt sets → the project's own tables."""

from safetydpo_kedro.pipelines.prompt_import.pipeline import create_pipeline

__all__ = ["create_pipeline"]
