"""Two runs at once in one project folder: the second one refuses at once, or both are right."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import pytest
from kedro.runner import ParallelRunner

from safetydpo_kedro import locks
from safetydpo_kedro.locks import Lock, LockedError, lock_file

from .. import small_project
from ..small_project import ALL, Project
from .projects import contents

TIME_LIMIT = 60
FIRST, SECOND = ALL[:2], ALL[2:]


class OtherRun:
    """A run in a process group of its own that waits in its first node until it may go on."""

    def __init__(self, project: Project, *pipelines: str, **options) -> None:
        self.project = project
        self.gate, self.inside = (project.path / name for name in ("gate", "inside"))
        arguments = (pipelines, options)
        self.process: BaseProcess = get_context("fork").Process(target=self._run, args=arguments)
        self.process.start()
        until(self.inside.exists)

    def _run(self, pipelines: tuple[str, ...], options: dict) -> None:
        os.setsid()
        self.project.log = self.project.path / "other.txt"
        small_project.note = self._wait
        self.project.run(*pipelines, **options)

    def _wait(self, log: str, name: str) -> None:
        self.inside.touch()
        until(self.gate.exists)

    def finish(self) -> None:
        self.gate.touch()
        self.process.join(TIME_LIMIT)
        assert self.process.exitcode == 0

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join(TIME_LIMIT)


@pytest.fixture
def other_run(project):
    """Starts such runs, and kills what is left of them."""
    started: list[OtherRun] = []

    def start(*pipelines: str, **options) -> OtherRun:
        started.append(OtherRun(project, *pipelines, **options))
        return started[-1]

    yield start
    for run in started:
        if run.process.is_alive():
            run.kill()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIME_LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def lock_files(project: Project) -> list[Path]:
    return list(project.path.rglob(".*.lock"))


def test_what_another_run_writes_is_neither_written_nor_read(project, other_run):
    project.run()
    other = other_run("first", shards={"size": 3})
    before = contents(project.data)
    for pipelines, artifact in ((("first",), "shards"), (("second",), "shards")):
        with pytest.raises(LockedError) as error:
            project.run(*pipelines, only_missing=False)
        message = str(error.value)
        assert f"{project.data / artifact} is being written by another run" in message
        assert f"(process {other.process.pid} on {socket.gethostname()}, since 2" in message
        assert "wait until that has ended" in message and "--namespaces" in message
        assert contents(project.data) == before
    other.finish()
    assert project.run(shards={"size": 3}) == SECOND
    assert lock_files(project) == []


def test_what_another_run_reads_may_be_read_and_not_written(project, other_run):
    project.run()
    other = other_run("second", report={"title": "Words"})
    with pytest.raises(LockedError, match=r"shards is being read by another run: wait"):
        project.run("first", shards={"size": 3})
    with pytest.raises(LockedError, match=r"report\.md is being written by another run"):
        project.run("second")
    shards = project.data / "shards"
    Lock(shards, exclusive=False).release()
    with pytest.raises(LockedError, match="read"):
        Lock(shards, exclusive=True)
    other.finish()
    assert project.run(report={"title": "Words"}) == []
    assert lock_files(project) == []


def test_a_killed_run_leaves_nothing_that_is_locked(project, other_run):
    other = other_run("first")
    other.kill()
    assert lock_file(project.data / "shards").exists()
    (project.data / ".report.md.abcd1234").touch()
    (project.data / ".table.parquet.manifest.json.abcd1234").touch()
    (project.data / "shards").mkdir()
    (project.data / "shards/.000.parquet.abcd1234").touch()
    (project.data / ".table.parquet.abcd1234").mkdir()
    (project.data / ".table.parquet.abcd1234/table.parquet").touch()
    mine = [project.data / ".keep.me", project.data / ".other.csv.abcd1234"]
    for path in mine:
        path.touch()
    assert project.run() == ALL
    hidden = [path for path in project.data.rglob(".*") if path.is_file()]
    assert sorted(hidden) == sorted(mine)


def test_workers_of_a_parallel_run_hold_its_locks(project, other_run):
    other = other_run(runner=ParallelRunner)
    with pytest.raises(LockedError, match=f"process {other.process.pid} "):
        project.run()
    os.kill(other.process.pid, signal.SIGKILL)  # and not its workers
    with pytest.raises(LockedError, match="or its workers"):
        project.run()
    other.kill()


def test_a_run_that_failed_or_was_interrupted_locks_nothing(project, monkeypatch):
    for error in (ValueError, KeyboardInterrupt):
        with monkeypatch.context() as patch, pytest.raises(error):

            def fail(log, name, error=error):
                raise error

            patch.setattr(small_project, "note", fail)
            project.run()
    assert project.run() == ALL
    assert project.run() == []
    assert lock_files(project) == []


def test_one_of_many_runs_at_the_same_moment_gets_through(project):
    """Processes that start together, each the whole run: those that get no lock change nothing."""

    def attempt() -> None:
        try:
            project.run()
        except LockedError:
            os._exit(3)

    processes = [get_context("fork").Process(target=attempt) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIME_LIMIT)
    codes = [process.exitcode for process in processes]
    assert set(codes) <= {0, 3} and 0 in codes
    assert project.run() == []
    table = pd.read_parquet(project.data / "table.parquet")
    assert len(table) == 6


def test_many_may_take_and_give_back_a_shared_lock_at_once(tmp_path):
    failures: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(50):
                Lock(tmp_path / "input", exclusive=False).release()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIME_LIMIT)
    assert failures == []
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_named_and_used(project, monkeypatch, caplog):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    assert project.run() == ALL
    assert project.run() == []
