"""Judges as their authors publish them → files that can be opened safely."""

from safetydpo_kedro.pipelines.judge_conversion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
