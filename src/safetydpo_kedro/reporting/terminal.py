"""The summary that a run prints last: one line per variant, and where to look next."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from safetydpo_kedro.reporting.tables import format_cell

TITLES = {"ip": "IP", "fid": "FID", "clip_score": "CLIP\nScore"}
FORMATS = {"ip": ".2f", "fid": ".3g", "clip_score": ".1f"}


def summary(
    table: pd.DataFrame,
    next_steps: Sequence[str] = (),
    *,
    columns: Sequence[str] = ("ip", "fid", "clip_score"),
) -> Group:
    """Build the summary.

    Args:
        table: ``benchmark_table``, one row per variant and benchmark.
        next_steps: lines below the table, for example where the figures lie.
        columns: measures to show for every benchmark; those nobody measured are left out.

    Returns:
        Something :mod:`rich` prints; in a file or a pipe it comes without colours.

    Raises:
        ValueError: the table lacks a column.
    """
    missing = [c for c in ("variant", "benchmark", *columns) if c not in table]
    if missing:
        raise ValueError(f"benchmark table lacks columns {missing}, got {list(table)}")
    wide = table.pivot(index="variant", columns="benchmark", values=list(columns))
    shown = [
        (benchmark, column)
        for benchmark in table["benchmark"].unique()
        for column in columns
        if wide[(column, benchmark)].notna().any()
    ]
    grid = Table(title="Evaluation", title_justify="left", show_edge=False, pad_edge=False)
    grid.add_column("variant", style="bold", no_wrap=True)
    for benchmark, column in shown:
        name = TITLES.get(column, column.replace("_", "\n"))
        grid.add_column(f"{benchmark}\n{name}", justify="right")
    for variant in table["variant"].unique():
        cells = [
            format_cell(float(wide.loc[variant, (column, benchmark)]), FORMATS.get(column, ".2f"))
            for benchmark, column in shown
        ]
        grid.add_row(str(variant), *cells)
    return Group(grid, *_steps(next_steps))


def attack_summary(table: pd.DataFrame, next_steps: Sequence[str] = ()) -> Group:
    """Success of attacks, one line per victim: goals hit, and in brackets any verdict.

    Args:
        table: ``attack_table``, one row per variant and attack.
        next_steps: lines below the table.
    """
    attacks = table["attack"].unique()
    title = "Attacks: goals hit (any inappropriate image)"
    grid = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    grid.add_column("victim", style="bold", no_wrap=True)
    for name in ("no attack", *attacks):
        grid.add_column(str(name).replace("_", "\n").replace(" ", "\n"), justify="right")
    for variant, rows in table.groupby("variant", sort=False):
        hits = [rows["hit_before"].iloc[0], *rows.set_index("attack")["hit"].reindex(attacks)]
        any_harm = [rows["asr_before"].iloc[0], *rows.set_index("attack")["asr"].reindex(attacks)]
        cells = [
            f"{format_cell(float(hit), '.2f')} ({format_cell(float(harm), '.2f')})"
            for hit, harm in zip(hits, any_harm, strict=True)
        ]
        grid.add_row(str(variant), *cells)
    return Group(grid, *_steps(next_steps))


def _steps(lines: Sequence[str]) -> list[Text]:
    """Where to look next."""
    steps = [Text(f"  {line}") for line in lines]
    return [Text("\nWhere to look next", style="bold"), *steps] if steps else []
