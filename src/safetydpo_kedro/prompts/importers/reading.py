"""Rows of files, with their lines; what cannot be read as a row is set aside."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetydpo_kedro.prompts.importers.schema import Intake, SourceRow

TEXT_COLUMN = "prompt"


def read_rows(path: Path, required: Sequence[str], intake: Intake) -> Iterator[SourceRow]:
    """Rows of a CSV file, of a text file with one prompt per line, or of all such in a folder.

    UTF-8, with or without a byte order mark; any line ends; fields may be quoted and then hold
    line ends. Blank lines are no rows.

    Args:
        path: file or folder.
        required: columns that must be there.
        intake: counts the rows, and takes those with bad quotes, bytes or numbers of fields.

    Raises:
        ValueError: no such file in the folder, or a file is empty, not text, or lacks a column.
    """
    for file in _files(path, (".csv", ".txt")):
        lines = list(io.StringIO(_read_text(file), newline=""))
        if file.suffix == ".txt":
            rows = _read_lines(file.name, lines)
        else:
            rows = _read_csv(file.name, lines, required, intake)
        for row in rows:
            intake.rows += 1
            if is_unicode(row, intake):
                yield row


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON in UTF-8: {error}; download it again") from error


def json_row(file: str, number: int, entry: Any, columns: Sequence[str]) -> SourceRow:
    """An entry of a JSON list as a row; what is not there or no text is empty."""
    entry = entry if isinstance(entry, dict) else {}
    texts = {name: entry.get(name) for name in columns}
    values = {name: text if isinstance(text, str) else "" for name, text in texts.items()}
    return SourceRow(file, number, values)


def is_unicode(row: SourceRow, intake: Intake) -> bool:
    """Whether all texts of a row can be written to a file; sets the row aside if not."""
    bad = [name for name, text in row.values.items() if not _is_unicode(text)]
    if bad:
        intake.reject(row, bad[0], "not_utf8")
    return not bad


def _files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes)
    if not files:
        raise ValueError(f"{path} holds no files {' or '.join(suffixes)}: put them there")
    return files


def _read_text(path: Path) -> str:
    """Text of a file; bytes that are not UTF-8 become lone surrogates, to be found later."""
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"{path} is empty: download it again")
    if b"\0" in content:
        raise ValueError(f"{path} is not text in UTF-8 (it holds zero bytes): convert it to UTF-8")
    return content.decode("utf-8-sig", "surrogateescape")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _read_lines(file: str, lines: list[str]) -> Iterator[SourceRow]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield SourceRow(file, number, {TEXT_COLUMN: line.strip()})


def _read_csv(
    file: str, lines: list[str], required: Sequence[str], intake: Intake
) -> Iterator[SourceRow]:
    records = _records(lines)
    _, header = next(records, (1, None))
    names = [name.strip() for name in header or []]
    missing = [name for name in required if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if header is None or missing or twice:
        fault = f"has columns {twice} more than once" if twice else f"lacks columns {missing}"
        raise ValueError(f"{file} {fault}; it needs {list(required)} and has {names}")
    for line, fields in records:
        if fields is None:
            intake.rows += 1
            intake.reject(SourceRow(file, line, {"": lines[line - 1]}), None, "broken_quotes")
        elif len(fields) != len(names):
            intake.rows += 1
            row = SourceRow(file, line, {"": ",".join(fields)})
            intake.reject(row, None, "wrong_number_of_fields")
        else:
            yield SourceRow(file, line, dict(zip(names, fields, strict=True)))


def _records(lines: list[str]) -> Iterator[tuple[int, list[str] | None]]:
    """Line and fields of each record; ``None`` for a line whose quotes are broken.

    After such a line reading goes on with the next one, so that a quote that is never closed does
    not swallow the rest of the file.
    """
    start = 0
    while start < len(lines):
        rest = (lines[i] for i in range(start, len(lines)))  # a copy for each would take hours
        reader = csv.reader(rest, strict=True)
        first = start
        try:
            for fields in reader:
                if fields:
                    yield first + 1, fields
                first = start + reader.line_num
            return
        except csv.Error:
            yield first + 1, None
            start = first + 1
