"""No file that the project ships, or that a run leaves, runs anything when it is opened."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from .code_rules import ROOT
from .file_rules import formulas, objection


def scanned(folder: Path) -> dict[str, str | None]:
    """Objection, or None, by the name of each file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return {path.relative_to(folder).as_posix(): objection(path) for path in files}


def test_a_finished_run_leaves_nothing_that_runs(finished_run):
    found = scanned(finished_run / "data")
    assert len(found) > 300
    assert not {name: problem for name, problem in found.items() if problem}


def test_nothing_that_runs_is_shipped():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "data"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert len(files) > 20
    found = {path.name: problem for path in files if (problem := objection(path))}
    assert not found


def test_tables_of_a_finished_run_have_no_formula_in_them(finished_run):
    tables = list((finished_run / "data/08_reporting").rglob("*.csv"))
    assert len(tables) > 10
    for table in tables:
        assert not formulas(table.read_text("utf-8")), table


def archive(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def numpy_file(value) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([value], dtype=object), allow_pickle=True)
    return buffer.getvalue()


HIDDEN = {
    **{f"protocol {p}": pickle.dumps({"a": [1]}, protocol=p) for p in range(6)},
    "torch.save": archive({"a": torch.zeros(1)}),
    "compressed, as by joblib": gzip.compress(pickle.dumps({"a": 1})),
    "numpy": numpy_file({"a": 1}),
    "script": b"#!/bin/sh\necho\n",
    "program": b"\x7fELF\x02\x01\x01",
}


@pytest.mark.parametrize("suffix", [".json", ".safetensors", ".parquet", ".png", ".csv"])
@pytest.mark.parametrize("kind", HIDDEN)
def test_the_scan_sees_through_names(tmp_path, kind, suffix):
    path = tmp_path / f"artifact{suffix}"
    path.write_bytes(HIDDEN[kind])
    assert objection(path)


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


def test_the_scan_sees_into_tables_and_behind_tensors(tmp_path):
    from safetensors.numpy import save_file

    write_parquet(tmp_path / "pickle.parquet", a=[pickle.dumps(1)])
    nested = pa.array([{"bytes": b"no image", "path": None}])
    write_parquet(tmp_path / "nested.parquet", image=nested)
    field = pa.field("a", pa.int64(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})
    table = pa.table({"a": [1]}).cast(pa.schema([field]))
    pq.write_table(table, tmp_path / "extension.parquet")
    table = pa.table({"a": [1]}).replace_schema_metadata({"mine": pickle.dumps({"a": 1})})
    pq.write_table(table, tmp_path / "metadata.parquet")
    save_file({"a": np.zeros(2)}, tmp_path / "tail.safetensors")
    with (tmp_path / "tail.safetensors").open("ab") as file:
        file.write(pickle.dumps(1))
    (tmp_path / "program.json").write_text("{}")
    (tmp_path / "program.json").chmod(0o755)
    (tmp_path / "other.bin").write_bytes(b"x")
    assert all(scanned(tmp_path).values())


def test_the_scan_lets_artifacts_pass(tmp_path, red_png):
    pd.DataFrame({"a": ["x", None], "b": [1.5, 2]}).to_parquet(tmp_path / "table.parquet")
    write_parquet(tmp_path / "images.parquet", image=[red_png])
    (tmp_path / "grid.png").write_bytes(red_png)
    (tmp_path / "report.json").write_text(json.dumps({"a": 1}))
    assert not any(scanned(tmp_path).values())


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)"])
def test_the_scan_sees_formulas(cell):
    assert formulas(f'a,b\n1,"{cell}"\n') == [cell]
    assert formulas("a,b\n-1.5,+2\n") == []
