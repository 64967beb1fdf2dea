"""Existing merge + new expert → extended merge."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.incremental import nodes


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines incremental --params added=hate``."""
    return Pipeline(
        [
            Node(
                nodes.extend_merge,
                [
                    "base_model",
                    "existing_merge",
                    "added_expert",
                    "latent_cache",
                    "train_pairs",
                    "preservation_cache",
                    "params:merging.fitting",
                ],
                ["extended_merge", "extension_history"],
                name="extend_merge",
                tags=["gpu"],
            ),
        ]
    )
