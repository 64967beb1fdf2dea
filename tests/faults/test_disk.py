"""Disks that are full or read-only: one clear error, nothing lost, and the run goes on later."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from safetydpo_kedro.artifacts import staged, write_atomically
from safetydpo_kedro.checkpoints import Checkpoints
from safetydpo_kedro.datasets.tensors import save_tensors
from safetydpo_kedro.write_errors import CannotWriteError

from ..small_project import ALL, Project
from .disks import mount
from .projects import contents


@pytest.fixture
def project(project, small_disk) -> Project:
    """A finished run, with its data on a disk of one megabyte."""
    disk = small_disk(size="1m")
    shutil.copytree(project.data, disk, dirs_exist_ok=True)
    shutil.rmtree(project.data)
    project.data.symlink_to(disk)
    project.run()
    return project


def fill(folder: Path, spare: int = 0) -> Path:
    """Fill a disk, up to some bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                break
    size = ballast.stat().st_size
    os.truncate(ballast, max(0, size - spare))
    return ballast


def write_table(path: Path) -> None:
    pd.DataFrame({"x": torch.rand(60000).numpy()}).to_parquet(path)


WRITERS = {
    "text": lambda path: path.write_text("word " * 40000),
    "csv": lambda path: pd.DataFrame({"x": range(40000)}).to_csv(path),
    "parquet": write_table,
    "safetensors": lambda path: save_tensors({"x": torch.rand(40000)}, path),
}


@pytest.mark.parametrize("place", [write_atomically, staged])
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_says_that_the_disk_is_full(small_disk, place, writer):
    disk = small_disk(size="128k")
    path = disk / "artifact"
    path.write_text("old")
    with pytest.raises(CannotWriteError) as error, place(path) as temporary:
        WRITERS[writer](temporary)
    assert str(error.value) == (
        f"{path} was not written: the disk is full; free some space, then run the same command "
        f"again: what is finished stays"
    )
    assert path.read_text() == "old"
    assert list(disk.iterdir()) == [path]


@pytest.mark.parametrize("artifact", ["table.parquet", "shards", "report.md"])
def test_a_run_on_a_full_disk_loses_nothing_and_goes_on(project, artifact):
    before = contents(project.data)
    changes = {
        "table.parquet": {"table": {"repeats": 3}},
        "shards": {"shards": {"size": 1}},
        "report.md": {"report": {"title": "Words"}},
    }[artifact]
    ballast = fill(project.data, spare=16384 if artifact == "shards" else 0)
    with pytest.raises(Exception, match="the disk is full; free some space") as error:
        project.run(**changes)
    assert f"{project.data}/" in str(error.value)
    ballast.unlink()
    if artifact != "shards":  # of which those that are not asked for any more go first
        assert contents(project.data) == before
    done = project.run(**changes)
    assert done[-1] == "make_report"
    assert project.run(**changes) == []
    hidden = [path for path in project.data.rglob(".*") if path.is_file()]
    assert hidden == []


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(small_disk):
    disk = small_disk(size="256k")
    model = nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(disk / "hate", {"a": 1})
    checkpoints.save(1, {"model": model}, optimizer)
    ballast = fill(disk, spare=8192)
    with pytest.raises(CannotWriteError, match="step-000002 was not written: the disk is full"):
        checkpoints.save(2, {"model": model}, optimizer)
    assert [path.name for path in (disk / "hate").iterdir()] == ["step-000001"]
    assert checkpoints.restore({"model": model}, optimizer).step == 1
    ballast.unlink()
    checkpoints.save(2, {"model": model}, optimizer)
    assert checkpoints.restore({"model": model}, optimizer).step == 2


def test_a_read_only_folder_is_named_before_anything_runs(project):
    before = contents(project.data)
    disk = project.data.resolve()
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(CannotWriteError) as error:
        project.run(only_missing=False)
    assert re.fullmatch(
        rf"{re.escape(str(project.data))}/\S+ was not written: its file system is read-only; make "
        r"it writable, or name another folder as `artifacts` in conf/<env>/globals\.yml, then run "
        r"the same command again: what is finished stays",
        str(error.value),
    )
    assert project.log.read_text() == ""
    assert project.run() == []  # everything is fresh: nothing has to be written
    with pytest.raises(CannotWriteError, match=r"report\.md was not written"):
        project.run(report={"title": "Words"})
    mount("-o", "remount,rw", str(disk))
    assert contents(project.data) == before
    assert project.run(report={"title": "Words"}) == ["make_counts", "make_report"]


def test_inputs_on_a_read_only_disk_are_read(project, tmp_path):
    """What another run has made, on a disk that this one may only read."""
    inputs = project.data.resolve()
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    catalog = project.path / "conf/base/catalog.yml"
    catalog.write_text(catalog.read_text().replace("data/report.md", str(outputs / "report.md")))
    mount("-o", "remount,ro", str(inputs))
    assert project.run("second") == ALL[2:]
    assert [path.name for path in outputs.iterdir() if path.name.startswith(".")] == []
