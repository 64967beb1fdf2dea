"""Benchmark prompts → images of every variant → judged images → tables, figures, a report."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.evaluation import baselines, judging, nodes, reports
from safetydpo_kedro.pipelines.evaluation.report_pipeline import create_report_pipeline
from safetydpo_kedro.pipelines.evaluation.variant_pipeline import (
    EXTERNAL,
    NAMESPACE,
    create_variant_pipeline,
)
from safetydpo_kedro.settings import ALL_SINGLE, MERGES, PUBLISHED, VARIANTS

NAMESPACES = (*VARIANTS, EXTERNAL)
SHOWN = (VARIANTS[0], ALL_SINGLE, *MERGES)


def prompts_node() -> Node:
    """The prompts that everything is evaluated with."""
    return Node(
        nodes.collect_benchmarks,
        {
            "parameters": "params:evaluation.benchmarks",
            "test_prompts": "test_prompts",
            "neutral_test_prompts": "neutral_test_prompts",
            **{name: f"{name}_prompts" for name in PUBLISHED},
        },
        "evaluation_prompts",
        name="collect_benchmarks",
        namespace=NAMESPACE,
    )


def references_node() -> Node:
    """Features of the real images."""
    return Node(
        judging.embed_references,
        ["reference_images", "judge_clip", "fid_network"],
        "reference_features",
        name="embed_references",
        namespace=NAMESPACE,
    )


def create_shared_pipeline() -> Pipeline:
    """What all variants need, and the figures that are held against targets."""
    return Pipeline(
        [
            prompts_node(),
            references_node(),
            Node(
                baselines.choose_concepts,
                ["train_pairs", "preservation_prompts", "params:evaluation.baselines.concepts"],
                "baseline_concepts",
                name="choose_concepts",
                namespace=NAMESPACE,
            ),
            Node(
                reports.compare_with_targets,
                ["image_scores", "benchmark_table", "params:evaluation.targets"],
                "key_figures",
                name="compare_with_targets",
                namespace=NAMESPACE,
            ),
        ]
    )


def create_pipeline(**kwargs) -> Pipeline:
    """The whole evaluation; ``--namespaces evaluation.hate`` draws and judges one variant."""
    variants = (create_variant_pipeline(name) for name in NAMESPACES)
    return sum(variants, create_shared_pipeline()) + create_report_pipeline(NAMESPACES, SHOWN)
