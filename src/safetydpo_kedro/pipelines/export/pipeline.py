"""The merged LoRA → files for other programs, a pipeline with it fused in, and a model card."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.export import nodes
from safetydpo_kedro.settings import CATEGORIES

MERGE = "fitted_co_merge"
STRENGTH = "params:export.strength"


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines export``; ``--nodes rename_for_kohya`` makes one alone.

    Only the card needs an evaluation. Its node comes last (Kedro takes free nodes by name), so
    that the weights are there before it asks for the tables.
    """
    return Pipeline(
        [
            Node(nodes.copy_lora, [MERGE, STRENGTH], "exported_lora", name="copy_lora"),
            Node(
                nodes.rename_for_kohya,
                [MERGE, STRENGTH],
                "fitted_co_merge_kohya",
                name="rename_for_kohya",
            ),
            Node(
                nodes.fuse_into_pipeline,
                ["base_model", MERGE, STRENGTH],
                "aligned_pipeline",
                name="fuse_into_pipeline",
            ),
            Node(
                nodes.write_model_card,
                {
                    "adapter": MERGE,
                    "benchmark_table": "benchmark_table",
                    "category_table": "category_table",
                    "variant_table": "variant_table",
                    "judges": "judges",
                    "benchmarks": "params:evaluation.benchmarks",
                    "bootstrap": "params:evaluation.bootstrap",
                    "card": "params:export.card",
                    "strength": STRENGTH,
                    **{category: f"{category}_expert" for category in CATEGORIES},
                },
                "model_card",
                name="write_model_card",
            ),
        ]
    )
