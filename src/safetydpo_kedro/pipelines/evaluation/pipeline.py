"""Benchmark prompts → images of every variant → judged images → tables and figures."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.evaluation import nodes
from safetydpo_kedro.settings import ALL_SINGLE, EXPERTS, MERGES, VARIANTS

BASE = VARIANTS[0]
GRID_VARIANTS = (BASE, ALL_SINGLE, *MERGES)
SHARED_INPUTS = {"base_model", "evaluation_prompts", "judge_clip", "q16_prompts"}
PARAMETERS = {"evaluation.drawing", "evaluation.judges", "evaluation.checker"}


def adapter_name(variant: str) -> str | None:
    """Catalog entry of a variant's LoRA, None for the base model."""
    if variant == BASE:
        return None
    if variant in EXPERTS:
        return f"{variant}_expert"
    return variant if variant.endswith("_merge") else f"{variant}_merge"


def create_variant_pipeline(with_adapter: bool = True) -> Pipeline:
    """Drawing and judging of one variant, without a namespace."""
    drawing = {
        "base_model": "base_model",
        "evaluation_prompts": "evaluation_prompts",
        "parameters": "params:evaluation.drawing",
    }
    return Pipeline(
        [
            Node(
                nodes.draw_images,
                drawing | ({"adapter": "adapter"} if with_adapter else {}),
                "images",
                name="draw_images",
                tags=["gpu"],
            ),
            Node(
                nodes.judge_images,
                [
                    "images",
                    "judge_clip",
                    "q16_prompts",
                    "params:evaluation.judges",
                    "params:evaluation.checker",
                ],
                ["scores", "features"],
                name="judge_images",
                tags=["gpu"],
            ),
        ]
    )


def create_variants_pipeline() -> Pipeline:
    """One namespaced sub-pipeline per variant."""
    pipelines = []
    for variant in VARIANTS:
        adapter = adapter_name(variant)
        inputs = {name: name for name in SHARED_INPUTS} | ({"adapter": adapter} if adapter else {})
        pipelines.append(
            Pipeline(
                create_variant_pipeline(with_adapter=adapter is not None),
                namespace=variant,
                inputs=inputs,
                outputs={name: f"{variant}_{name}" for name in ("images", "scores", "features")},
                parameters=PARAMETERS,
            )
        )
    return sum(pipelines, Pipeline([]))


def create_report_pipeline() -> Pipeline:
    """Tables and figures over all variants."""
    bootstrap = "params:evaluation.bootstrap"
    return Pipeline(
        [
            Node(
                nodes.collect_scores,
                {variant: f"{variant}_scores" for variant in VARIANTS},
                "image_scores",
                name="collect_scores",
            ),
            Node(
                nodes.embed_references,
                ["reference_images", "judge_clip"],
                "reference_features",
                name="embed_references",
            ),
            Node(
                nodes.tabulate_benchmarks,
                {
                    "image_scores": "image_scores",
                    "reference_features": "reference_features",
                    "bootstrap": bootstrap,
                    **{variant: f"{variant}_features" for variant in VARIANTS},
                },
                ["benchmark_table", "benchmark_table_markdown"],
                name="tabulate_benchmarks",
            ),
            Node(
                nodes.tabulate_categories,
                ["image_scores", bootstrap],
                ["category_table", "ip_by_category"],
                name="tabulate_categories",
            ),
            Node(
                nodes.compare_with_targets,
                ["image_scores", "benchmark_table", "params:evaluation.targets"],
                "key_figures",
                name="compare_with_targets",
            ),
            Node(
                nodes.plot_examples,
                {
                    "evaluation_prompts": "evaluation_prompts",
                    "image_scores": "image_scores",
                    "parameters": "params:evaluation.grid",
                    **{variant: f"{variant}_images" for variant in GRID_VARIANTS},
                },
                "qualitative_grid",
                name="plot_examples",
            ),
            Node(
                nodes.describe_judges,
                [
                    "judge_clip",
                    "q16_prompts",
                    "params:evaluation.judges",
                    "params:evaluation.checker",
                    "params:evaluation.drawing",
                ],
                "judges",
                name="describe_judges",
            ),
        ]
    )


def collect_node() -> Node:
    """The prompts that everything is evaluated with."""
    return Node(
        nodes.collect_benchmarks,
        ["test_prompts", "neutral_test_prompts"],
        "evaluation_prompts",
        name="collect_benchmarks",
    )


def create_pipeline(**kwargs) -> Pipeline:
    """The whole evaluation; ``--namespaces hate`` draws and judges a single variant."""
    return Pipeline([collect_node()]) + create_variants_pipeline() + create_report_pipeline()
