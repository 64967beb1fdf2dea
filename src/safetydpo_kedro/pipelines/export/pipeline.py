"""The merged LoRA → a file with Kohya's keys, and a pipeline with the LoRA fused into it."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.export import nodes


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines export``; ``--nodes rename_for_kohya`` leaves the large one out."""
    return Pipeline(
        [
            Node(
                nodes.rename_for_kohya,
                ["fitted_co_merge", "params:export.strength"],
                "fitted_co_merge_kohya",
                name="rename_for_kohya",
            ),
            Node(
                nodes.fuse_into_pipeline,
                ["base_model", "fitted_co_merge", "params:export.strength"],
                "aligned_pipeline",
                name="fuse_into_pipeline",
            ),
        ]
    )
