"""What a file of artifacts may be, read from its bytes and not from its name."""

from __future__ import annotations

import csv
import io
import json
import pickletools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
TEXTS = {".csv", ".gitkeep", ".html", ".json", ".jsonl", ".md", ".tex", ".txt", ".yml"}
# Programs, archives (torch.save writes a zip), compressed files (of joblib), NumPy's, HDF5.
REFUSED = {
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\xcf\xfa\xed\xfe": "a program",
    b"\xca\xfe\xba\xbe": "a program",
    b"\0asm": "a program",
    b"#!": "a script",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a compressed file",
    b"BZh": "a compressed file",
    b"\xfd7zXZ": "a compressed file",
    b"\x28\xb5\x2f\xfd": "a compressed file",
    b"\x93NUMPY": "a NumPy file",
    b"\x89HDF": "an HDF5 file",
}


def objection(path: Path) -> str | None:
    """Why a file must not be an artifact; None: it is of a kind that runs nothing when opened."""
    content = path.read_bytes()
    if path.stat().st_mode & 0o111:
        return "may be executed"
    if problem := _signature(content):
        return problem
    if path.suffix == ".safetensors":
        return _safetensors(content)
    if path.suffix == ".parquet":
        return next(_parquet(path), None)
    if path.suffix == ".png":
        return None if content.startswith(IMAGES[0]) else "no PNG"
    if path.suffix in TEXTS or path.name in TEXTS:
        return _text(content)
    return f"of an unknown kind '{path.suffix}'"


def is_pickle(content: bytes) -> bool:
    """Whether bytes are a whole pickle, of any protocol."""
    if not content.endswith(b".") or len(content) < 4:
        return False
    try:
        return list(pickletools.genops(content))[-1][0].name == "STOP"
    except Exception:  # what is no pickle fails in many ways
        return False


def formulas(table: str) -> list[str]:
    """Cells of a CSV that a spreadsheet would compute rather than show."""
    cells = (cell for row in csv.reader(io.StringIO(table)) for cell in row)
    return [cell for cell in cells if cell.startswith(("=", "+", "-", "@")) and not _number(cell)]


def _signature(content: bytes) -> str | None:
    for signature, kind in REFUSED.items():
        if content.startswith(signature):
            return kind
    begins = content[:1] == b"\x80" and content[1:2] <= b"\x05"
    return "a pickle" if begins or is_pickle(content) else None


def _safetensors(content: bytes) -> str | None:
    """A header of JSON and nothing after the last tensor."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return None if 8 + size + max(ends, default=0) == len(content) else "more than its tensors"


def _parquet(path: Path) -> Iterator[str]:
    file = pq.ParquetFile(path)
    metadata = {**(file.metadata.metadata or {}), **(file.schema_arrow.metadata or {})}
    for field in file.schema_arrow:
        metadata |= field.metadata or {}
    if any(b"extension" in key or is_pickle(value) for key, value in metadata.items()):
        yield "with a Python object in its metadata"
    for key in metadata:
        if key not in (b"pandas", b"huggingface", b"ARROW:schema", b"PARQUET:field_id"):
            yield f"with metadata of an unknown kind {key!r}"
    for batch in file.iter_batches():
        for column in batch.columns:
            for value in _binaries(column):
                if not value.startswith(IMAGES):
                    yield "with bytes that are no image"


def _binaries(column: pa.Array) -> Iterator[bytes]:
    """All byte strings of a column, however deep."""
    if pa.types.is_struct(column.type):
        for inner in column.flatten():
            yield from _binaries(inner)
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        yield from _binaries(column.flatten())
    elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        yield from (value for value in column.to_pylist() if value is not None)


def _text(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return "no text"
    return "with zero bytes" if "\0" in text else None


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
