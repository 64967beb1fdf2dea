"""Data frames as tables of the HTML report: texts to show, values to sort by, links to follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from safetydpo_kedro.reporting.tables import DEFAULT_FORMAT, FORMATS, format_cell

# Columns that are shown as one: value → ends of its confidence interval.
INTERVALS = {"ip": ("ip_low", "ip_high"), "difference": ("low", "high")}
HEADINGS = {
    "ip": "IP",
    "ip_against": "IP of the other",
    "ip_any": "IP with the others",
    "fid": "FID",
    "kid": "KID",
    "kid_std": "KID, standard deviation",
    "clip_score": "CLIPScore",
    "difference": "difference of IP",
    "only_variant": "only variant inappropriate",
    "only_against": "only other inappropriate",
    "p_value": "p",
    "p_adjusted": "p (Holm)",
    "weights_sha256": "SHA-256 of the weights",
    "images_sha256": "SHA-256 of the images",
}


@dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: what is shown; empty if the value is missing.
        value: what it is sorted by: a number, or the text.
        target: anchor in the report that says where it comes from; empty: no link.
        best: whether it is shown as the best of its column.
    """

    text: str
    value: float | str
    target: str = ""
    best: bool = False


@dataclass(frozen=True)
class HtmlTable:
    """A table that can be sorted and filtered.

    Attributes:
        key: anchor.
        caption: what it shows.
        headings: of each column, with whether it is numeric.
        rows: cells, the first of which heads its row.
    """

    key: str
    caption: str
    headings: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...] = field(repr=False)


def html_table(
    key: str,
    caption: str,
    table: pd.DataFrame,
    targets: Mapping[str, str],
    best: pd.DataFrame | None = None,
    formats: Mapping[str, str] | None = None,
) -> HtmlTable:
    """Prepare a table.

    Args:
        key: anchor in the report.
        caption: what it shows.
        table: a value with an interval (see ``INTERVALS``) becomes one column.
        targets: variant → anchor of its entry; columns ``variant`` and ``against`` link there.
        best: booleans in the form of ``table``: which values to emphasise.
        formats: format specification by column, over ``FORMATS``.

    Raises:
        ValueError: a variant has no entry, so that its numbers could not be traced.
    """
    ends = {end for value, pair in INTERVALS.items() if value in table for end in pair}
    shown = [column for column in table if column not in ends]
    specifications = {**FORMATS, **(formats or {})}
    columns = []
    for column in shown:
        intervals = [table[end] for end in INTERVALS.get(column, ()) if end in table]
        cells = [
            _cell(value, specifications.get(column, DEFAULT_FORMAT), interval)
            for value, interval in zip(
                table[column],
                zip(*intervals, strict=True) if intervals else [()] * len(table),
                strict=True,
            )
        ]
        if column in ("variant", "against"):
            cells = [_linked(cell, targets, key) for cell in cells]
        if best is not None:
            cells = [
                Cell(cell.text, cell.value, cell.target, bool(is_best))
                for cell, is_best in zip(cells, best[column], strict=True)
            ]
        columns.append(cells)
    headings = tuple((heading(c), pd.api.types.is_numeric_dtype(table[c])) for c in shown)
    return HtmlTable(key, caption, headings, tuple(zip(*columns, strict=True)))


def heading(column: str) -> str:
    """What a column is called."""
    if column in HEADINGS:
        return HEADINGS[column]
    if column.startswith("ip_"):
        return f"IP, {column.removeprefix('ip_')} alone"
    return column.replace("_", " ")


def _cell(value: object, specification: str, interval: tuple[float, ...]) -> Cell:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return Cell("", "")
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        return Cell(str(value), str(value))
    # Without resamples there is no interval.
    bounds = [] if any(np.isnan(end) for end in interval) else list(interval)
    texts = [format_cell(shown, specification) for shown in (value, *bounds)]
    text = f"{texts[0]} [{', '.join(texts[1:])}]" if bounds else texts[0]
    # A minus in front of a digit, not the one of an exponent.
    text = " ".join("−" + t[1:] if t.startswith("-") else t for t in text.split(" "))
    return Cell(text.replace("[-", "[−"), float(value))


def _linked(cell: Cell, targets: Mapping[str, str], table: str) -> Cell:
    if cell.text not in targets:
        raise ValueError(
            f"{table}: variant '{cell.text}' is not in the table of variants, which has "
            f"{sorted(targets)}; add it, else its numbers cannot be traced"
        )
    return Cell(cell.text, cell.value, targets[cell.text])
