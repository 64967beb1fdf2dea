"""The results in the form of the paper: one row per method, safety and quality side by side.

Liu et al., "SafetyDPO: Scalable Safety Alignment for Text-to-Image Generation", 2024, table 2:
IP on harmful benchmarks, FID and CLIPScore on benign ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from safetydpo_kedro.reporting import tables
from safetydpo_kedro.reporting.tables import DEFAULT_FORMAT, FORMATS, KEY, format_cell

BASE = "base"
LOWER, HIGHER = "↓", "↑"
# Column of benchmark_table → what the paper's table calls it, which way is better, and its format.
SAFETY = {"ip": ("IP", LOWER, DEFAULT_FORMAT)}
QUALITY = {
    "fid": ("FID", LOWER, FORMATS["fid"]),
    "kid": ("KID", LOWER, FORMATS["kid"]),
    "clip_score": ("CLIPScore", HIGHER, FORMATS["clip_score"]),
}
_FORMATS = {name: specification for name, _, specification in (SAFETY | QUALITY).values()}


def paper_table(
    benchmark_table: pd.DataFrame, harmful: Sequence[str], benign: Sequence[str]
) -> pd.DataFrame:
    """Spread the benchmark table: one row per variant.

    Args:
        benchmark_table: ``variant, benchmark, ip`` and what there is of ``fid, kid, clip_score``.
        harmful: benchmarks that show IP, in their order; those that were not drawn are left out.
        benign: likewise, benchmarks that show quality.

    Returns:
        ``variant`` (the base model first), then a column of floats for each measure and benchmark,
        named like ``IP ↓ (unsafe)``; the arrow says which way is better. NaN where a measure was
        not taken; a column without any value is left out.

    Raises:
        ValueError: a variant and benchmark has several rows, or no benchmark was drawn.

    Example:
        >>> table = pd.DataFrame(
        ...     {
        ...         "variant": ["co_merge", "base"],
        ...         "benchmark": ["unsafe", "unsafe"],
        ...         "ip": [0.1, 0.9],
        ...     }
        ... )
        >>> paper_table(table, ["unsafe"], ["coco"])
            variant  IP ↓ (unsafe)
        0      base            0.9
        1  co_merge            0.1
    """
    repeated = benchmark_table[benchmark_table.duplicated(KEY)]
    if len(repeated):
        pairs = repeated[KEY].to_records(index=False).tolist()
        raise ValueError(f"benchmark_table needs one row per variant and benchmark; again: {pairs}")
    there = set(benchmark_table["benchmark"])
    if not there & {*harmful, *benign}:
        raise ValueError(
            f"paper_table: none of the benchmarks {[*harmful, *benign]} was drawn; "
            f"there are {sorted(there)}"
        )
    columns = {}
    for measures, benchmarks in ((SAFETY, harmful), (QUALITY, benign)):
        for benchmark in (name for name in benchmarks if name in there):
            rows = benchmark_table[benchmark_table["benchmark"] == benchmark].set_index("variant")
            for column, (name, arrow, _) in measures.items():
                if column in rows and rows[column].notna().any():
                    columns[f"{name} {arrow} ({benchmark})"] = rows[column].astype(float)
    variants = sorted(benchmark_table["variant"].unique(), key=lambda name: name != BASE)
    table = pd.DataFrame(columns, index=pd.Index(variants, name="variant"))
    return table.reset_index()


def best_values(table: pd.DataFrame) -> pd.DataFrame:
    """Where a column has its best value; the base model does not compete.

    Args:
        table: of :func:`paper_table`.

    Returns:
        Booleans in the form of ``table``. Values that print alike are equally good.
    """
    cells = formatted(table)
    best = pd.DataFrame(False, index=table.index, columns=table.columns)
    rivals = table["variant"] != BASE
    for column in table.columns[1:]:
        values = table.loc[rivals, column].dropna()
        if len(values):
            winner = values.idxmin() if f" {LOWER} " in column else values.idxmax()
            best[column] = rivals & (cells[column] == cells.loc[winner, column])
    return best


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table as texts, each measure with its own number of digits; missing ones are empty."""
    cells = {"variant": table["variant"].astype(str)}
    for column, specification in column_formats(table).items():
        cells[column] = table[column].map(lambda value, s=specification: format_cell(value, s))
    return pd.DataFrame(cells, index=table.index, columns=table.columns)


def column_formats(table: pd.DataFrame) -> dict[str, str]:
    """Format specification of each column of numbers."""
    return {column: _FORMATS[column.split(" ")[0]] for column in table.columns[1:]}


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table, aligned so that it also reads as plain text; best values are bold.

    Args:
        table: of :func:`paper_table`.
    """
    cells = formatted(table)
    bold = cells.where(~best_values(table), "**" + cells + "**")
    return tables.to_markdown(bold, numeric=list(table.columns[1:]))


def to_latex(table: pd.DataFrame, caption: str | None = None, label: str | None = None) -> str:
    r"""A LaTeX table for ``\usepackage{booktabs}``; best values are bold.

    Args:
        table: of :func:`paper_table`.
        caption: plain text; characters that mean something to LaTeX are escaped by the caller.
        label: for ``\ref``.
    """
    best = best_values(table).to_numpy()
    styler = formatted(table).style.hide(axis="index")
    styler = styler.format(escape="latex").format_index(escape="latex", axis=1)
    styler = styler.apply(lambda _: np.where(best, "textbf: --rwrap;", ""), axis=None)
    text = styler.to_latex(
        hrules=True,
        column_format="l" + "r" * (table.shape[1] - 1),
        caption=caption,
        label=label,
        position_float="centering" if caption or label else None,
    )
    text = re.sub(r"(?<=[ {])-(?=\d)", "$-$", text)  # a minus, where LaTeX would set a hyphen
    return text.replace(LOWER, r"$\downarrow$").replace(HIGHER, r"$\uparrow$")
