"""Tables, figures and the report over all variants."""

from __future__ import annotations

from collections.abc import Sequence

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.evaluation import judging, reports
from safetydpo_kedro.pipelines.evaluation.variant_pipeline import JUDGE_MODELS, NAMESPACE

REPORTED = (
    "evaluation_prompts",
    "image_scores",
    "benchmark_table",
    "category_table",
    "comparison_table",
    "threshold_table",
    "benchmark_overview",
    "variant_table",
    "ip_by_category",
    "ip_by_threshold",
    "safety_and_quality",
    "judges",
)


def create_report_pipeline(
    namespaces: Sequence[str], shown: Sequence[str], benchmarks: str = "evaluation.benchmarks"
) -> Pipeline:
    """Tables, figures and the report.

    Args:
        namespaces: those of the variants.
        shown: those whose images are in the grid.
        benchmarks: parameters that say which prompts are harmful.
    """
    bootstrap = "params:evaluation.bootstrap"
    benchmarks = f"params:{benchmarks}"
    return Pipeline(
        [
            Node(
                judging.collect_scores,
                {
                    "verdicts": "params:evaluation.verdicts",
                    **{name: f"{name}_judgements" for name in namespaces},
                },
                "image_scores",
                name="collect_scores",
            ),
            Node(
                reports.tabulate_benchmarks,
                {
                    "image_scores": "image_scores",
                    "bootstrap": bootstrap,
                    **{name: f"{name}_distances" for name in namespaces},
                },
                ["benchmark_table", "benchmark_table_markdown"],
                name="tabulate_benchmarks",
            ),
            Node(
                reports.tabulate_as_published,
                ["benchmark_table", benchmarks],
                ["paper_table", "paper_table_markdown", "paper_table_latex"],
                name="tabulate_as_published",
            ),
            Node(
                reports.tabulate_categories,
                ["image_scores", benchmarks, bootstrap],
                ["category_table", "ip_by_category"],
                name="tabulate_categories",
            ),
            Node(
                reports.compare_variants,
                ["image_scores", "params:evaluation.comparisons", bootstrap],
                "comparison_table",
                name="compare_variants",
            ),
            Node(
                reports.sweep_thresholds,
                ["image_scores", benchmarks, "params:evaluation.thresholds"],
                ["threshold_table", "ip_by_threshold"],
                name="sweep_thresholds",
            ),
            Node(
                reports.describe_benchmarks,
                ["evaluation_prompts", "image_scores"],
                "benchmark_overview",
                name="describe_benchmarks",
            ),
            Node(
                reports.describe_variants,
                "image_scores",
                "variant_table",
                name="describe_variants",
            ),
            Node(
                reports.plot_safety_and_quality,
                ["benchmark_table", benchmarks],
                "safety_and_quality",
                name="plot_safety_and_quality",
            ),
            Node(
                reports.plot_examples,
                {
                    "evaluation_prompts": "evaluation_prompts",
                    "image_scores": "image_scores",
                    "parameters": "params:evaluation.grid",
                    "benchmarks": benchmarks,
                    **{name: f"{name}_images" for name in shown},
                },
                "qualitative_grid",
                name="plot_examples",
            ),
            Node(
                judging.describe_judges,
                {
                    **JUDGE_MODELS,
                    **{
                        name: f"params:evaluation.{name}"
                        for name in ("judges", "verdicts", "checker", "drawing")
                    },
                },
                "judges",
                name="describe_judges",
            ),
            Node(
                reports.write_report,
                {
                    **{name: name for name in REPORTED},
                    "benchmarks": benchmarks,
                    "bootstrap": bootstrap,
                    "kid": "params:evaluation.kid",
                    "baselines": "params:evaluation.baselines",
                    "grid": "params:evaluation.grid",
                    **{name: f"{name}_images" for name in namespaces},
                },
                "evaluation_report",
                name="write_report",
            ),
        ],
        namespace=NAMESPACE,
        prefix_datasets_with_namespace=False,
    )
