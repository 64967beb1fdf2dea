"""Runs that are killed again and again end as if nothing had happened."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from .projects import NEEDS, bring_inputs, contents, difference, make_project
from .runs import Run, run

HIDDEN = (".lock", ".gitkeep")
SMALL_KILLS = 12


def command(pipeline: str) -> list[str]:
    """Of ``kedro``, first and again."""
    return ["run", "--pipelines", pipeline, "--only-missing-outputs"]


class Stages:
    """Projects after one pipeline each has run undisturbed; made when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def before(self, pipeline: str, name: str) -> Path:
        """A new project in which the pipeline can run."""
        project = self.folder / name
        shutil.rmtree(project, ignore_errors=True)
        needed = NEEDS[pipeline]
        if needed:
            shutil.copytree(self.after(needed[-1]), project, symlinks=True)
        else:
            make_project(project)
        bring_inputs(project, pipeline)
        return project

    def after(self, pipeline: str) -> Path:
        """A project in which it has run, not to be changed."""
        project = self.folder / f"after_{pipeline}"
        if pipeline not in self.seconds:
            self.before(pipeline, project.name)
            started = time.monotonic()
            run(project, *command(pipeline))
            self.seconds[pipeline] = time.monotonic() - started
        return project


@pytest.fixture(scope="session")
def stages(tmp_path_factory) -> Stages:
    return Stages(tmp_path_factory.mktemp("stages"))


def is_writing(project: Path) -> Callable[[], bool]:
    """Whether a temporary file is there, as long as somebody writes an artifact."""
    data = project / "data"

    def look() -> bool:
        # Not by `rglob`, which minds folders that go meanwhile.
        names = (name for _, *both in os.walk(data) for name in itertools.chain(*both))
        return any(name.startswith(".") and not name.endswith(HIDDEN) for name in names)

    return look


def kill_and_finish(stages: Stages, pipeline: str, kills: int, seed: int) -> list[str]:
    """Kill runs of a pipeline one after another, every other one while it writes; finish it.

    Returns:
        What is other than in an undisturbed run.
    """
    chance = random.Random(f"{pipeline} {seed}")
    undisturbed = stages.after(pipeline)
    expected = contents(undisturbed / "data")
    project = stages.before(pipeline, "killed")
    seconds, done = stages.seconds[pipeline], 0
    found: list[str] = []
    while done < kills:
        moment = seconds * (done + chance.random()) / kills
        when = is_writing(project) if done % 2 else lambda: True
        if Run(project, *command(pipeline)).kill_at(moment, when):
            done += 1
        else:  # it came to its end, so runs are faster than the one that was timed
            seconds *= 0.8
            found += difference(contents(project / "data"), expected)
            project = stages.before(pipeline, "killed")
    run(project, *command(pipeline))
    assert "Everything is fresh" in run(project, *command(pipeline))
    return found + difference(contents(project / "data"), expected)


def test_a_small_run_that_is_killed_ends_like_one_that_is_not(project, pytestconfig):
    project.run()
    expected = contents(project.data)
    started = time.monotonic()
    project.run(only_missing=False)
    seconds = time.monotonic() - started
    chance = random.Random(pytestconfig.getoption("--kill-seed", default=0))
    killed = 0
    for _ in range(SMALL_KILLS):
        for path in list(project.data.iterdir()):
            if path.name != "words.csv" and chance.random() < 0.5:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        process = get_context("fork").Process(target=project.run)
        process.start()
        process.join(seconds * chance.random())
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed
    project.run()
    assert project.run() == []
    assert difference(contents(project.data), expected) == []


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", NEEDS)
def test_a_pipeline_that_is_killed_ends_like_one_that_is_not(stages, pipeline, pytestconfig):
    kills = pytestconfig.getoption("--kills", default=4)
    seed = pytestconfig.getoption("--kill-seed", default=0)
    assert kill_and_finish(stages, pipeline, kills, seed) == []
