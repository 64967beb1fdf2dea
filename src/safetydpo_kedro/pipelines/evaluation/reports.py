"""Nodes of ``evaluation`` that report: thin wrappers of ``metrics`` and ``reporting``."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.artifacts import plain
from safetydpo_kedro.metrics.config import BootstrapConfig, KidConfig
from safetydpo_kedro.pipelines.evaluation.judging import DISTANCE_COLUMNS
from safetydpo_kedro.pipelines.evaluation.parameters import (
    BenchmarksParameters,
    ComparisonsParameters,
    ThresholdsParameters,
)
from safetydpo_kedro.reporting.config import GridConfig, TargetsConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Chart
else:  # Kedro resolves the annotations when it starts, which must not load plotting libraries
    Chart = Figure = object

logger = logging.getLogger(__name__)

QUALITY = ("concept_accuracy", "clip_score")


def tabulate_benchmarks(
    image_scores: pd.DataFrame, bootstrap: BootstrapConfig, **distances: pd.DataFrame
) -> tuple[pd.DataFrame, str]:
    """IP, FID, KID, CLIPScore and accuracies by variant and benchmark, also as Markdown.

    Markdown leaves out columns of what was not measured at all.

    Args:
        image_scores: judged images of all variants.
        bootstrap: of the interval of IP.
        distances: FID and KID of each variant.
    """
    from safetydpo_kedro.metrics.checker import checker_means
    from safetydpo_kedro.reporting.tables import FORMATS, KEY, benchmark_table, to_markdown

    measured = pd.concat([table for table in distances.values() if len(table)] or [_NO_DISTANCES])
    warnings = measured["warning"].dropna().unique()
    for warning in warnings:
        logger.warning("%s", warning)
    extra = [measured.drop(columns="warning"), checker_means(image_scores, KEY)]
    table = benchmark_table(image_scores, extra, bootstrap)
    notes = "".join(f"\n{warning}\n" for warning in warnings)
    return table, to_markdown(table.dropna(axis="columns", how="all"), FORMATS) + notes


_NO_DISTANCES = pd.DataFrame(columns=DISTANCE_COLUMNS, dtype=float).astype(
    {"variant": object, "benchmark": object}
)


def tabulate_as_published(
    benchmark_table: pd.DataFrame, benchmarks: BenchmarksParameters
) -> tuple[pd.DataFrame, str, str]:
    """The table in the paper's form: as data, Markdown and LaTeX."""
    from safetydpo_kedro.reporting.paper_table import paper_table, to_latex, to_markdown

    table = paper_table(benchmark_table, benchmarks.harmful, benchmarks.benign)
    return table, to_markdown(table), to_latex(table)


def tabulate_categories(
    image_scores: pd.DataFrame, benchmarks: BenchmarksParameters, bootstrap: BootstrapConfig
) -> tuple[pd.DataFrame, Chart]:
    """IP and accuracies by variant, benchmark and category, and IP as a chart.

    The chart shows the first of the harmful benchmarks that has categories. Lists of plain prompts
    have none; if nothing else was drawn, table and chart are empty.
    """
    from safetydpo_kedro.metrics.checker import checker_means
    from safetydpo_kedro.reporting.figures import ip_by_category_figure
    from safetydpo_kedro.reporting.tables import CATEGORY_KEY, per_category_table

    title = "Inappropriate probability by category"
    harmful = _drawn(image_scores, benchmarks.harmful)
    if image_scores.loc[image_scores["benchmark"].isin(harmful), "category"].isna().all():
        table = pd.DataFrame(columns=[*CATEGORY_KEY, "images", "ip", "ip_low", "ip_high"])
        return table, ip_by_category_figure(table, title=title)
    table = per_category_table(image_scores, harmful, bootstrap, checker_means)
    shown = table["benchmark"].iloc[0]
    title = f"{title}, {shown} prompts"
    return table, ip_by_category_figure(table[table["benchmark"] == shown], title=title)


def compare_variants(
    image_scores: pd.DataFrame, comparisons: ComparisonsParameters, bootstrap: BootstrapConfig
) -> pd.DataFrame:
    """Paired tests of IP: every variant against some, on the same prompts and seeds.

    Raises:
        ValueError: something that is no variant, drawn or left out, is to be compared with.
    """
    from safetydpo_kedro.metrics.paired import paired_comparison
    from safetydpo_kedro.settings import VARIANTS

    variants = image_scores["variant"].unique().tolist()
    unknown = sorted(set(comparisons.against) - {*variants, *VARIANTS})
    if unknown:
        raise ValueError(
            f"evaluation.comparisons.against: {unknown} are no variants; there are "
            f"{', '.join(dict.fromkeys([*variants, *VARIANTS]))}"
        )
    pairs: list[tuple[str, str]] = []
    for other in comparisons.against:
        # Each pair once: a second test of the same difference would only weaken the others.
        new = [(v, other) for v in variants if v != other and (other, v) not in pairs]
        pairs += new if other in variants else []
    return paired_comparison(image_scores, pairs, bootstrap)


def sweep_thresholds(
    image_scores: pd.DataFrame, benchmarks: BenchmarksParameters, thresholds: ThresholdsParameters
) -> tuple[pd.DataFrame, Chart]:
    """IP over a range of thresholds of each judge, and a chart of one benchmark.

    That is the first harmful one; without any, the first.
    """
    from safetydpo_kedro.metrics.inappropriate import judges
    from safetydpo_kedro.metrics.thresholds import threshold_sweep
    from safetydpo_kedro.reporting.figures import ip_by_threshold_figure

    there = set(judges(image_scores))
    ranges = {name: values for name, values in thresholds if values and name in there}
    table = threshold_sweep(image_scores, ranges)
    shown = (_drawn(image_scores, benchmarks.harmful) or [image_scores["benchmark"].iloc[0]])[0]
    title = f"Inappropriate probability by threshold, {shown} prompts"
    return table, ip_by_threshold_figure(table[table["benchmark"] == shown], title)


def describe_benchmarks(
    evaluation_prompts: pd.DataFrame, image_scores: pd.DataFrame
) -> pd.DataFrame:
    """What the benchmarks consist of, and IP of the base model on each."""
    from safetydpo_kedro.reporting.tables import benchmark_overview

    return benchmark_overview(evaluation_prompts, image_scores[image_scores["variant"] == "base"])


def plot_safety_and_quality(
    benchmark_table: pd.DataFrame, benchmarks: BenchmarksParameters
) -> Chart:
    """IP of the first harmful benchmark against quality on the last benign one.

    Where one of the two kinds was not drawn, both axes are of the other.
    """
    from safetydpo_kedro.reporting.figures import safety_and_quality_figure

    kinds = (benchmarks.harmful, benchmarks.benign)
    harmful, benign = (_drawn(benchmark_table, names) for names in kinds)
    harmful, benign = (harmful or benign)[0], (benign or harmful)[-1]
    rows = benchmark_table[benchmark_table["benchmark"] == benign]
    quality = next(c for c in QUALITY if c in rows and rows[c].notna().any())
    return safety_and_quality_figure(
        benchmark_table, harmful, benign, quality, "Safety against quality"
    )


def _drawn(table: pd.DataFrame, benchmarks: tuple[str, ...]) -> list[str]:
    """Those of some benchmarks that a table has."""
    there = set(table["benchmark"])
    return [name for name in benchmarks if name in there]


def compare_with_targets(
    image_scores: pd.DataFrame, benchmark_table: pd.DataFrame, targets: TargetsConfig | None
) -> pd.DataFrame:
    """The key figures, beside their targets if there are any."""
    from safetydpo_kedro.reporting.key_figures import key_figures

    return key_figures(image_scores, benchmark_table, targets)


def plot_examples(
    evaluation_prompts: pd.DataFrame,
    image_scores: pd.DataFrame,
    parameters: GridConfig,
    benchmarks: BenchmarksParameters,
    **images: pd.DataFrame,
) -> Figure:
    """The same prompts and seeds drawn by several variants, base on top.

    Args:
        evaluation_prompts: one row per prompt.
        image_scores: judged images of all variants.
        parameters: how many prompts of each kind, and what to blur.
        benchmarks: which benchmarks are harmful.
        images: namespace → images of its variants, of each in the order of the prompts; those
            without any are left out.
    """
    from safetydpo_kedro.reporting.examples import example_rows, images_by_variant
    from safetydpo_kedro.reporting.grids import qualitative_grid

    rows = example_rows(evaluation_prompts, parameters, benchmarks.harmful, benchmarks.benign)
    flags = dict(tuple(image_scores.groupby("variant")["inappropriate"]))
    drawn = images_by_variant(images.values(), rows)
    return qualitative_grid(
        drawn,
        evaluation_prompts["prompt"].iloc[rows].tolist(),
        blur=parameters.blur,
        flagged={variant: flags[variant].iloc[rows].tolist() for variant in drawn},
    )


def describe_variants(image_scores: pd.DataFrame) -> pd.DataFrame:
    """What each variant is, and hashes of what draws it and of what it drew."""
    from safetydpo_kedro.reporting.tables import variant_table
    from safetydpo_kedro.settings import ALL_SINGLE, BASELINES, CATEGORIES, MERGES

    kinds = {"base": "base", ALL_SINGLE: "joint expert"}
    for names, kind in ((CATEGORIES, "expert"), (MERGES, "merge"), (BASELINES, "baseline")):
        kinds |= dict.fromkeys(names, kind)
    return variant_table(image_scores, kinds)


def write_report(
    evaluation_prompts: pd.DataFrame,
    image_scores: pd.DataFrame,
    benchmark_table: pd.DataFrame,
    category_table: pd.DataFrame,
    comparison_table: pd.DataFrame,
    threshold_table: pd.DataFrame,
    benchmark_overview: pd.DataFrame,
    variant_table: pd.DataFrame,
    ip_by_category: Chart,
    ip_by_threshold: Chart,
    safety_and_quality: Chart,
    judges: dict[str, Any],
    benchmarks: BenchmarksParameters,
    bootstrap: BootstrapConfig,
    kid: KidConfig,
    baselines: dict[str, Any],
    grid: GridConfig,
    **images: pd.DataFrame,
) -> str:
    """Everything in one HTML file that needs nothing beside it.

    Args:
        evaluation_prompts: one row per prompt.
        image_scores: judged images of all variants.
        benchmark_table: measures by variant and benchmark.
        category_table: IP by category.
        comparison_table: paired tests.
        threshold_table: IP over thresholds.
        benchmark_overview: what the benchmarks consist of.
        variant_table: where the numbers come from.
        ip_by_category: a chart.
        ip_by_threshold: a chart.
        safety_and_quality: a chart.
        judges: names, versions and hashes of all that judged.
        benchmarks: which prompts were taken, and which are harmful.
        bootstrap: of the intervals.
        kid: subsets of KID.
        baselines: their settings.
        grid: how many examples, and what to blur.
        images: namespace → images of its variants.
    """
    from safetydpo_kedro.reporting.examples import example_rows, example_table
    from safetydpo_kedro.reporting.html_report import ReportContent, html_report
    from safetydpo_kedro.reporting.paper_table import paper_table

    rows = example_rows(evaluation_prompts, grid, benchmarks.harmful, benchmarks.benign)
    figures = [safety_and_quality, ip_by_category, ip_by_threshold]
    content = ReportContent(
        title="Safety evaluation",
        benchmark_table=benchmark_table,
        paper_table=paper_table(benchmark_table, benchmarks.harmful, benchmarks.benign),
        category_table=category_table,
        comparisons=comparison_table,
        thresholds=threshold_table,
        datasets=benchmark_overview,
        variants=variant_table,
        figures={figure.layout.title.text: figure for figure in figures if figure.data},
        examples=example_table(images.values(), image_scores, rows),
        provenance=judges
        | {
            "benchmarks": benchmarks.model_dump(mode="json"),
            "bootstrap": bootstrap.model_dump(mode="json"),
            "kid": kid.model_dump(mode="json"),
            "baselines": json.loads(json.dumps(baselines, default=plain)),
        },
        blur=grid.blur,
        harmful=benchmarks.harmful,
        benign=benchmarks.benign,
    )
    return html_report(content)
