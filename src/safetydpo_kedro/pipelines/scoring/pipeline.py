"""The base model and external ones → images of published prompts → the tables of an evaluation."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.evaluation.pipeline import references_node
from safetydpo_kedro.pipelines.evaluation.report_pipeline import create_report_pipeline
from safetydpo_kedro.pipelines.evaluation.variant_pipeline import EXTERNAL, create_variant_pipeline
from safetydpo_kedro.pipelines.scoring import nodes
from safetydpo_kedro.settings import PUBLISHED, VARIANTS

NAMESPACES = (VARIANTS[0], EXTERNAL)
BENCHMARKS = "scoring.benchmarks"


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines scoring``, after ``prompt_import``."""
    prompts = Node(
        nodes.collect_imported,
        {
            "parameters": f"params:{BENCHMARKS}",
            **{name: f"{name}_prompts" for name in PUBLISHED},
        },
        "evaluation_prompts",
        name="collect_imported",
    )
    variants = (create_variant_pipeline(name) for name in NAMESPACES)
    shared = Pipeline([prompts, references_node()])
    return sum(variants, shared) + create_report_pipeline(NAMESPACES, NAMESPACES, BENCHMARKS)
