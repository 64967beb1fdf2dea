"""The default run on a cluster of three worker processes, one of which is killed half-way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ..small_run import make_small_project
from .projects import contents, difference

WORKERS = 3
TIME_LIMIT = 1800
MIB = 1 << 20


def start_run(project: Path) -> subprocess.Popen:
    """``kedro run`` on a cluster of this machine."""
    command = ["run", "--runner", "safetydpo_kedro.runners.DaskRunner"]
    with (project.parent / "run.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "kedro", *command, "--runner-params", f"workers={WORKERS}"],
            cwd=project,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def workers_of(run: subprocess.Popen) -> list[psutil.Process]:
    """Its worker processes: children that have loaded large libraries."""
    children = psutil.Process(run.pid).children(recursive=True)
    return [child for child in children if child.memory_info().rss > 200 * MIB]


@pytest.mark.slow
def test_three_workers_make_the_default_run_and_one_may_die(finished_run, tmp_path):
    """Adapters, images, scores and reports are those of the sequential run, byte for byte."""
    project = tmp_path / "project"
    make_small_project(project)
    run = start_run(project)
    experts = project / "data/06_models/experts"
    deadline = time.monotonic() + TIME_LIMIT
    while len(list(experts.glob("*.safetensors"))) < WORKERS and time.monotonic() < deadline:
        assert run.poll() is None, (tmp_path / "run.log").read_text()[-4000:]
        time.sleep(0.05)
    max(workers_of(run), key=lambda process: process.cpu_times().user).kill()
    assert run.wait(TIME_LIMIT) == 0, (tmp_path / "run.log").read_text()[-4000:]
    expected = contents(finished_run / "data")
    assert difference(contents(project / "data"), expected) == []
    assert any(name.endswith("_expert.safetensors") or "experts/" in name for name in expected)
