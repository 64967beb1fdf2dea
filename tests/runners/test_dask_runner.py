"""The runner on a real cluster of three worker processes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, Worker
from kedro.framework.project import configure_project
from kedro.io import DatasetError
from kedro.runner import SequentialRunner

from safetydpo_kedro.runners import DaskRunner
from safetydpo_kedro.runners.clusters import local_cluster

from .squares import Project, register_pipelines


@pytest.fixture(scope="module")
def cluster() -> LocalCluster:
    """Three workers, each with a place for a node that needs a GPU."""
    with local_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def runner(cluster) -> DaskRunner:
    return DaskRunner(address=cluster.scheduler_address)


@pytest.fixture
def make_project(tmp_path, monkeypatch):
    from safetydpo_kedro import pipeline_registry

    monkeypatch.setattr(pipeline_registry, "register_pipelines", register_pipelines)
    configure_project("safetydpo_kedro")
    logging.getLogger("safetydpo_kedro").setLevel(logging.INFO)

    def make(name: str = "project") -> Project:
        return Project(tmp_path / name)

    return make


@pytest.fixture
def project(make_project) -> Project:
    return make_project()


@pytest.fixture
def records(monkeypatch):
    """All log records of this process, those that came from workers too."""
    found: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = found.append
    logging.getLogger().addHandler(handler)
    yield found
    logging.getLogger().removeHandler(handler)


def test_the_cluster_makes_what_one_process_makes(make_project, runner):
    """Byte for byte, and every shard once, by more than one process."""
    alone, together = make_project("alone"), make_project("together")
    alone.run(SequentialRunner(), log=str(alone.path / "log.txt"))
    together.run(runner, log=str(alone.path / "log.txt"))
    assert together.artifacts() == alone.artifacts()
    assert (together.data / "report.md").read_text() == "Total: 280"
    begun = alone.computed()[12:]  # those of the cluster; the log is a parameter and so the same
    assert sorted(entry[:2] for entry in begun) == [(e, n) for e in (2, 3) for n in range(6)]
    assert len({process for _, _, process in begun}) > 1


def test_a_run_on_the_cluster_knows_what_is_fresh(project, runner):
    project.run(runner)
    before = project.computed()
    project.run(runner, only_missing=True)
    assert project.computed() == before
    (project.data / "squares/003.parquet").unlink()
    project.run(runner, only_missing=True)
    assert [entry[:2] for entry in project.computed()[len(before) :]] == [(2, 3)]


def test_what_a_lost_worker_was_doing_is_done_by_another(project, runner, records):
    project.run(runner, kill=4)
    begun = [number for exponent, number, _ in project.computed() if exponent == 2]
    assert sorted(begun) == [0, 1, 2, 3, 4, 4, 5]  # only the shard that was lost
    assert any("is lost; others do again" in record.getMessage() for record in records)
    assert (project.data / "report.md").read_text() == "Total: 280"


def test_a_node_that_fails_leaves_the_hint_how_to_resume(project, runner, records):
    with pytest.raises(DatasetError, match=r"number . is not wanted"):
        project.run(runner, fail=True)
    messages = [record.getMessage() for record in records]
    assert any('--from-nodes "' in message and "square" in message for message in messages)
    project.run(runner, only_missing=True)
    assert (project.data / "report.md").read_text() == "Total: 280"


def test_logs_of_the_workers_come_back(project, runner, records):
    project.run(runner)
    made = [record for record in records if record.name == "safetydpo_kedro.squares"]
    assert [record.getMessage().split(" by ")[0] for record in made] == ["numbers are made"]
    assert made[0].worker.startswith("tcp://")


def test_what_is_handed_on_in_memory_is_refused(project, runner):
    catalog = project.path / "conf/base/catalog.yml"
    catalog.write_text(catalog.read_text().replace("total:", "other:"))
    with pytest.raises(ValueError, match=r"'total' of node add_up.*path in the catalog"):
        project.run(runner)
    assert not (project.data / "numbers.csv").exists()


def test_a_node_for_a_gpu_needs_a_worker_that_announces_one(project):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as plain,
        pytest.raises(RuntimeError, match=r"square is tagged gpu.*--resources GPU=1"),
    ):
        project.run(DaskRunner(address=plain.scheduler_address))


def test_work_that_nobody_wants_any_more_ends(cluster):
    """A bar stops the work of a run that has failed elsewhere, or whose process is gone."""
    from safetydpo_kedro.runners.workers import WorkerSetup

    with Client(cluster) as client:
        client.register_plugin(WorkerSetup.of_this_process())
        future = client.submit(count_for_long)
        while not any(client.processing().values()):
            time.sleep(0.05)
        time.sleep(0.5)
        future.cancel(force=True)
        deadline = time.monotonic() + 30
        while any(client.run(busy).values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(client.run(busy).values())


def test_workers_may_start_processes_of_their_own(cluster):
    """As a training with ``num_processes`` does."""
    with Client(cluster) as client:
        assert client.submit(status_of_a_process).result() == 0


def status_of_a_process() -> int | None:
    process = get_context("spawn").Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    return process.exitcode


def count_for_long() -> None:
    from safetydpo_kedro.progress import progress_bar

    with progress_bar(total=6000) as bar:
        for _ in range(6000):
            time.sleep(0.01)
            bar.update()


def busy(dask_worker: Worker) -> bool:

    return any("count_for_long" in str(key) for key in dask_worker.active_threads.values())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"workers": 0}, "workers=0: must be a positive number"),
        ({"workers": "three"}, "workers='three': must be a positive number"),
        ({"workers": 2, "address": "tcp://127.0.0.1:1"}, "give one of the two"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        DaskRunner(**parameters)


@contextmanager
def cluster_of_commands(folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A scheduler and a worker as they are started by hand: the scheduler, and its address."""
    file, options = folder / "scheduler.json", ["--no-dashboard", "--host", "127.0.0.1"]
    scheduler = dask("scheduler", "--scheduler-file", str(file), "--port", "0", *options)
    worker = dask("worker", "--scheduler-file", str(file), "--resources", "GPU=1", *options)
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield scheduler, json.loads(file.read_text())["address"]
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait()


def dask(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_run_with_one_error(project, runner, tmp_path):
    with (
        cluster_of_commands(tmp_path) as (scheduler, address),
        pytest.raises(ConnectionError, match=r"scheduler at tcp.* is gone.*--only-missing-outputs"),
    ):
        project.run(DaskRunner(address=address), kill=3, victim=scheduler.pid)
    project.run(runner, only_missing=True)
    assert (project.data / "report.md").read_text() == "Total: 280"


def test_a_scheduler_that_is_not_there_is_named(project, monkeypatch):
    from safetydpo_kedro.runners import dask_runner

    monkeypatch.setattr(dask_runner, "SECONDS_FOR_WORKERS", 1)
    with pytest.raises(ConnectionError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        project.run(DaskRunner(address="tcp://127.0.0.1:9"))
