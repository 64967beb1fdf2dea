"""Small files in the published formats."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.schema import Intake, rejected_table
from safetydpo_kedro.settings import CATEGORIES

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT.parent / "shared" / "data"
KNOWN = Categories(CATEGORIES, {"Harrasment": "harassment"})
COPROV2 = ["prompt", "image", "category"]


def csv_text(rows: Iterable[Sequence[Any]], line_end: str = "\r\n") -> str:
    """Rows as CSV; the first are the columns."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator=line_end).writerows(rows)
    return buffer.getvalue()


def write_csv(path: Path, rows: Iterable[Sequence[Any]], encoding: str = "utf-8") -> Path:
    """A CSV file; the first row are the columns."""
    path.write_bytes(csv_text(rows).encode(encoding))
    return path


def write_json(path: Path, content: Any) -> Path:
    """A JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def pair_rows(index: int | str, category: str = "Violence", **prompts: str) -> list[list[str]]:
    """The two rows of a pair in the training file of CoProV2."""
    unsafe = prompts.get("unsafe", f"a knife on table {index}")
    safe = prompts.get("safe", f"a spoon on table {index}")
    return [
        [unsafe, f"u_idx_{index}_0.jpg", category],
        [safe, f"s_idx_{index}_0.jpg", category],
    ]


def reasons(intake: Intake) -> list[tuple[int, str | None, str]]:
    """Line, column and reason of every row that was set aside."""
    table = rejected_table(intake.rejected)
    columns = [None if value is None else value for value in table["column"]]
    return list(zip(table["line"].tolist(), columns, table["reason"].tolist(), strict=True))
