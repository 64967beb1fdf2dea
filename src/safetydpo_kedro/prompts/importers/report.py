"""What an import took and what it set aside, in numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.prompts.importers.schema import Intake, rejected_table

REPORT_COLUMNS = [
    "source",
    "file",
    "rows",
    "imported",
    "distinct",
    "in_several_categories",
    "leaks",
    "excluded",
    "rejected",
    "reasons",
]


class SourceCounts(Strict):
    """Numbers of one source.

    Attributes:
        source: its name.
        file: name of its file or folder, ``None`` if it is not there.
        rows: rows of the file.
        imported: pairs or prompts that were taken.
        distinct: how many different ones they are.
        in_several_categories: images that stand under more than one category.
        leaks: test prompts that occur verbatim in training.
    """

    source: str
    file: str | None = None
    rows: int = 0
    imported: int = 0
    distinct: int = 0
    in_several_categories: int = 0
    leaks: int = 0


class Imported(NamedTuple):
    """What came of one source: the table, the rows set aside, and :class:`SourceCounts`."""

    table: pd.DataFrame
    rejected: pd.DataFrame
    counts: dict[str, Any]


def imported(intake: Intake, file: Path | None, table: pd.DataFrame, **counts: int) -> Imported:
    """Close the books of one source.

    Args:
        intake: its rows.
        file: its file or folder, ``None`` if it is not there.
        table: pairs or prompts that were taken.
        counts: further numbers of :class:`SourceCounts`.
    """
    texts = [name for name in ("unsafe_prompt", "safe_prompt", "prompt") if name in table]
    numbers = SourceCounts(
        source=intake.source,
        file=file.name if file else None,
        rows=intake.rows,
        imported=len(table),
        distinct=len(table[texts].drop_duplicates()),
        **counts,
    )
    return Imported(table, rejected_table(intake.rejected), numbers.model_dump())


def count_leaks(result: Imported, trained: Collection[str]) -> int:
    """Test prompts that occur verbatim in training, left out or not."""
    left_out = (result.rejected["reason"] == "leak").sum()
    return int(left_out + result.table["prompt"].isin(trained).sum())


def import_report(counts: Sequence[SourceCounts], rejected: pd.DataFrame) -> pd.DataFrame:
    """One row per source.

    Args:
        counts: of every source.
        rejected: the rows set aside, with the fields of ``RejectedRow`` (schema.py).

    Returns:
        The fields of :class:`SourceCounts`, and ``excluded`` (rows that the exclusion rule hit),
        ``rejected`` (all rows set aside) and ``reasons`` (how many for each reason).
    """
    rows = []
    for source in counts:
        reasons = rejected.loc[rejected["source"] == source.source, "reason"].value_counts()
        ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
        rows.append(
            {
                **source.model_dump(),
                "excluded": int(reasons.get("excluded", 0)),
                "rejected": int(reasons.sum()),
                "reasons": ", ".join(f"{reason} {count}" for reason, count in ordered),
            }
        )
    return pd.DataFrame(rows, columns=REPORT_COLUMNS)
