"""The few figures that say whether the job is done: how safe, and at what cost.

Changes compare the merge with the base model on the same prompts and seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.table import Table

from safetydpo_kedro.reporting.config import TargetsConfig

BASE, JOINT, LINEAR, MERGED = "base", "all_single", "linear", "fitted_co_merge"
AT_MOST, AT_LEAST = "≤", "≥"


@dataclass(frozen=True)
class Measurements:
    """What the figures are computed from; whatever was not measured is NaN.

    Attributes:
        scores: ``image_scores``, one row per image.
        table: ``benchmark_table``, one row per variant and benchmark.
    """

    scores: pd.DataFrame
    table: pd.DataFrame

    def measure(self, variant: str, benchmark: str, column: str) -> float:
        """One entry of the benchmark table."""
        table = self.table
        rows = table[(table["variant"] == variant) & (table["benchmark"] == benchmark)]
        return float(rows[column].iloc[0]) if len(rows) and column in rows else np.nan

    def change(self, variant: str, benchmark: str, column: str) -> float:
        """Difference to the base model, of shares in points (hundredths)."""
        measured = self.measure(variant, benchmark, column)
        return 100 * (measured - self.measure(BASE, benchmark, column))

    def relative_change(self, variant: str, benchmark: str, column: str) -> float:
        """Difference to the base model in percent of the base model's value."""
        base = self.measure(BASE, benchmark, column)
        return 100 * (self.measure(variant, benchmark, column) / base - 1) if base else np.nan

    def own_category(self, column: str, variant: str | None = None) -> float:
        """Mean over categories of a column's mean on unsafe prompts of the category.

        Args:
            column: of the image scores.
            variant: the variant to look at; None takes for each category its own expert.
        """
        if column not in self.scores:
            return np.nan
        unsafe = self.scores[self.scores["benchmark"] == "unsafe"]
        experts = [c for c in unsafe["category"].unique() if c in set(unsafe["variant"])]
        rows = unsafe[unsafe["category"].isin(experts)]
        rows = rows[rows["variant"] == (rows["category"] if variant is None else variant)]
        return float(rows.groupby("category")[column].mean().mean())


@dataclass(frozen=True)
class Figure:
    """One key figure.

    Attributes:
        key: its name in :class:`TargetsConfig`; None if it has no target.
        title: what it is.
        sense: whether targets are upper or lower bounds.
        value: how it is computed.
        joint: the same for the expert for all categories, where that makes sense.
    """

    key: str | None
    title: str
    sense: str
    value: Callable[[Measurements], float]
    joint: Callable[[Measurements], float] | None = None


def _merged(
    key: str, title: str, sense: str, compute: Callable[[Measurements, str], float]
) -> Figure:
    """A figure of the merge, with the same of the joint expert beside it."""
    return Figure(key, title, sense, lambda m: compute(m, MERGED), lambda m: compute(m, JOINT))


def _ip(variant: str) -> Callable[[Measurements], float]:
    return lambda m: m.measure(variant, "unsafe", "ip")


FIGURES = (
    Figure("ip_base", "IP of base, unsafe prompts", AT_LEAST, _ip(BASE)),
    Figure(
        "ip_experts",
        "IP of experts on their own category, mean",
        AT_MOST,
        lambda m: m.own_category("inappropriate"),
        lambda m: m.own_category("inappropriate", JOINT),
    ),
    Figure("ip_all_single", "IP of all_single, unsafe prompts", AT_MOST, _ip(JOINT), _ip(JOINT)),
    Figure(
        "ip_fitted_co_merge",
        "IP of fitted_co_merge, unsafe prompts",
        AT_MOST,
        _ip(MERGED),
        _ip(JOINT),
    ),
    Figure(None, "IP of linear, unsafe prompts", AT_MOST, _ip(LINEAR), _ip(JOINT)),
    _merged(
        "ip_fitted_co_merge_minus_linear",
        "IP of fitted_co_merge minus IP of linear",
        AT_MOST,
        lambda m, v: m.measure(v, "unsafe", "ip") - m.measure(LINEAR, "unsafe", "ip"),
    ),
    Figure(
        "ip_fitted_co_merge_minus_all_single",
        "IP of fitted_co_merge minus IP of all_single",
        AT_MOST,
        lambda m: m.measure(MERGED, "unsafe", "ip") - m.measure(JOINT, "unsafe", "ip"),
    ),
    *(
        _merged(
            f"concept_{benchmark}",
            f"concept accuracy, {benchmark} prompts, change in points",
            AT_LEAST,
            lambda m, v, b=benchmark: m.change(v, b, "concept_accuracy"),
        )
        for benchmark in ("safe", "neutral")
    ),
    _merged(
        "background_unsafe",
        "background accuracy, unsafe prompts, change in points",
        AT_LEAST,
        lambda m, v: m.change(v, "unsafe", "background_accuracy"),
    ),
    *(
        _merged(
            f"{column}_{benchmark}",
            f"{title}, {benchmark} prompts, change in %",
            sense,
            lambda m, v, b=benchmark, c=column: m.relative_change(v, b, c),
        )
        for column, title, sense in (("clip_score", "CLIPScore", AT_LEAST), ("fid", "FID", AT_MOST))
        for benchmark in ("safe", "neutral")
    ),
    Figure(
        "mate_experts",
        "drawn as the safe mate, experts on their own category",
        AT_LEAST,
        lambda m: m.own_category("drawn_as_mate"),
        lambda m: m.own_category("drawn_as_mate", JOINT),
    ),
    _merged(
        "mate_fitted_co_merge",
        "drawn as the safe mate, fitted_co_merge",
        AT_LEAST,
        lambda m, v: m.measure(v, "unsafe", "mate_accuracy"),
    ),
)


def key_figures(
    scores: pd.DataFrame, table: pd.DataFrame, targets: TargetsConfig | None = None
) -> pd.DataFrame:
    """Compute the key figures and hold them against their targets.

    Args:
        scores: ``image_scores``.
        table: ``benchmark_table``.
        targets: bounds to reach; none by default.

    Returns:
        One row per figure: ``figure, value, must, goal, all_single, reached``. ``must`` and
        ``goal`` are bounds such as ``≤ 0.2``, empty without a target; ``all_single`` is the same
        figure for the expert for all categories; ``reached`` is ``goal``, ``must`` or ``missed``,
        empty without a target or a value. IP and accuracies in [0, 1].
    """
    measurements = Measurements(scores, table)
    targets = targets or TargetsConfig()
    rows = []
    for figure in FIGURES:
        target = getattr(targets, figure.key) if figure.key else None
        must, goal = (target.must, target.goal) if target else (None, None)
        value = figure.value(measurements)
        rows.append(
            {
                "figure": figure.title,
                "value": value,
                "must": _bound(figure.sense, must),
                "goal": _bound(figure.sense, goal),
                "all_single": figure.joint(measurements) if figure.joint else np.nan,
                "reached": _reached(figure.sense, value, must, goal),
            }
        )
    return pd.DataFrame(rows)


def key_figures_table(figures: pd.DataFrame) -> Table:
    """The key figures as a table for the terminal."""
    colours = {"goal": "green", "must": "yellow", "missed": "bold red"}
    grid = Table(title="Key figures", title_justify="left", show_edge=False, pad_edge=False)
    grid.add_column("figure")
    for column in ("value", "must", "goal", "all_single"):
        grid.add_column(column, justify="right", no_wrap=True)
    grid.add_column("reached")
    # Read from a CSV, an empty text is missing.
    for row in figures.astype(object).where(figures.notna(), "").to_dict("records"):
        style = colours.get(row["reached"], "")
        numbers = [f"{row[c]:.3g}" if row[c] != "" else "" for c in ("value", "all_single")]
        cells = (row["figure"], numbers[0], row["must"], row["goal"], numbers[1], row["reached"])
        grid.add_row(*cells, style=style)
    return grid


def _bound(sense: str, bound: float | None) -> str:
    return "" if bound is None else f"{sense} {bound:g}"


def _reached(sense: str, value: float, must: float | None, goal: float | None) -> str:
    """The better of the targets that hold."""
    if np.isnan(value):
        return ""
    if goal is not None and _holds(sense, value, goal):
        return "goal"
    if must is None:
        return ""
    return "must" if _holds(sense, value, must) else "missed"


def _holds(sense: str, value: float, bound: float) -> bool:
    return value <= bound if sense == AT_MOST else value >= bound
