"""What the tables of an evaluation say, computed: the safest variant, what it costs, how sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from safetydpo_kedro.reporting.paper_table import BASE, HIGHER, LOWER, QUALITY
from safetydpo_kedro.reporting.tables import DEFAULT_FORMAT, format_cell

# Measures of quality on benign prompts, their names, which way is better, and their format.
MEASURES = QUALITY | {
    "concept_accuracy": ("concept accuracy", HIGHER, DEFAULT_FORMAT),
    "background_accuracy": ("background accuracy", HIGHER, DEFAULT_FORMAT),
}


@dataclass(frozen=True)
class QualityChange:
    """One measure of quality of a variant and of the base model, on a benign benchmark."""

    benchmark: str
    column: str
    base: float
    value: float

    @property
    def name(self) -> str:
        """What the measure is called."""
        return MEASURES[self.column][0]

    @property
    def worse(self) -> bool:
        """Whether the variant is worse than the base model."""
        lower = MEASURES[self.column][1] == LOWER
        return self.value > self.base if lower else self.value < self.base

    def __str__(self) -> str:
        form = MEASURES[self.column][2]
        base, value = format_cell(self.base, form), format_cell(self.value, form)
        difference = format_cell(self.value - self.base, "+" + form.removeprefix("#"))
        return f"{self.name} {base} → {value} ({difference})".replace("-", "−")


@dataclass(frozen=True)
class Safest:
    """The variant with the lowest IP on a harmful benchmark.

    Attributes:
        benchmark: where.
        row: of the benchmark table.
        base: row of the base model; None if it was not drawn.
        comparison: row of the paired comparison with the base model, the variant first; None if
            there is none.
        overlapping: other variants whose interval of IP overlaps this one's.
        changes: quality on benign benchmarks, compared with the base model.
    """

    benchmark: str
    row: pd.Series
    base: pd.Series | None
    comparison: pd.Series | None
    overlapping: tuple[str, ...]
    changes: tuple[QualityChange, ...]

    @property
    def variant(self) -> str:
        """Its name."""
        return str(self.row["variant"])


def safest(
    table: pd.DataFrame,
    benchmark: str,
    benign: Sequence[str],
    comparisons: pd.DataFrame | None = None,
) -> Safest | None:
    """Find the variant with the lowest IP; the base model does not compete.

    Args:
        table: ``benchmark_table``.
        benchmark: a harmful one.
        benign: benchmarks that show what safety costs.
        comparisons: paired tests, if there are any.

    Returns:
        None if no variant but the base model has an IP there.
    """
    rows = table[(table["benchmark"] == benchmark) & table["ip"].notna()]
    rivals = rows[rows["variant"] != BASE]
    if rivals.empty:
        return None
    row = rivals.loc[rivals["ip"].idxmin()]
    others = rivals.drop(row.name)
    near = others[(others["ip_low"] <= row["ip_high"]) & (others["ip_high"] >= row["ip_low"])]
    return Safest(
        benchmark,
        row,
        _only(rows, variant=BASE),
        _comparison(comparisons, benchmark, str(row["variant"])),
        tuple(near.sort_values("ip", kind="stable")["variant"]),
        tuple(quality_changes(table, str(row["variant"]), benign)),
    )


def _comparison(comparisons: pd.DataFrame | None, benchmark: str, variant: str) -> pd.Series | None:
    """The test of a variant against the base model, whichever of the two stands first."""
    if comparisons is None or comparisons.empty:
        return None
    row = _only(comparisons, benchmark=benchmark, variant=variant, against=BASE)
    turned = _only(comparisons, benchmark=benchmark, variant=BASE, against=variant)
    if row is not None or turned is None:
        return row
    ends = {"difference": -turned["difference"], "low": -turned["high"], "high": -turned["low"]}
    names = {"variant": variant, "against": BASE}
    swapped = {"ip": "ip_against", "only_variant": "only_against"}
    swapped |= {against: name for name, against in swapped.items()}
    others = {name: turned[other] for name, other in swapped.items() if name in turned}
    return pd.Series({**turned, **names, **others, **ends})


def quality_changes(
    table: pd.DataFrame, variant: str, benign: Sequence[str]
) -> list[QualityChange]:
    """Measures of quality that both a variant and the base model have.

    Args:
        table: ``benchmark_table``.
        variant: which one.
        benign: benchmarks, in their order.
    """
    changes = []
    for benchmark in benign:
        base = _only(table, variant=BASE, benchmark=benchmark)
        ours = _only(table, variant=variant, benchmark=benchmark)
        if base is None or ours is None:
            continue
        for column in (c for c in MEASURES if c in table):
            if not np.isnan(base[column]) and not np.isnan(ours[column]):
                values = float(base[column]), float(ours[column])
                changes.append(QualityChange(benchmark, column, *values))
    return changes


def small_samples(table: pd.DataFrame, by: Sequence[str], minimum: int) -> pd.DataFrame:
    """Groups of which too few images were judged for a narrow interval.

    Args:
        table: ``images, ip_low, ip_high`` and the ``by`` columns.
        by: columns that name a group; of its variants the one with fewest images counts.
        minimum: images that are enough.

    Returns:
        One row per small group: the ``by`` columns, ``images`` and ``width`` (of the widest
        interval of its variants).
    """
    widths = table.assign(width=table["ip_high"] - table["ip_low"])
    groups = widths.groupby(list(by), sort=False).agg(
        images=("images", "min"), width=("width", "max")
    )
    return groups[groups["images"] < minimum].reset_index()


def _only(table: pd.DataFrame, **values: str) -> pd.Series | None:
    """The row with these values, if there is one."""
    for column, value in values.items():
        table = table[table[column] == value]
    return None if table.empty else table.iloc[0]
