"""How much is done to the project, and folders on small disks."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kedro.framework.project import configure_project

from ..small_project import Project, register_pipelines
from . import damage
from .disks import mount


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--kills", type=int, default=4, help="of each pipeline, in the slow tests")
    group.addoption("--kill-seed", type=int, default=0, help="of the moments of killing")
    group.addoption("--damage", type=int, default=1, help="times as many damaged inputs as usual")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for some in terminalreporter.stats.values() for r in some]
    for line in damage.table(reports):
        terminalreporter.write_line(line)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Callable[[str], damage.Tally]]:
    """Makes books for what becomes of inputs of a kind."""
    made: list[damage.Tally] = []

    def make(kind: str) -> damage.Tally:
        made.append(damage.Tally(kind))
        return made[-1]

    yield make
    request.node.user_properties += [damage.record(books) for books in made]


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The same accidents in every run of a test."""
    return random.Random(request.node.name)


@pytest.fixture
def rounds(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """How often something is done that is usually done so often: ``--damage`` times that."""
    return lambda usual: usual * pytestconfig.getoption("--damage", default=1)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of four quick nodes."""
    from safetydpo_kedro import pipeline_registry

    monkeypatch.setattr(pipeline_registry, "register_pipelines", register_pipelines)
    configure_project("safetydpo_kedro")
    return Project(tmp_path / "project")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes folders on disks of their own: ``small_disk(size="1m")``."""
    mounted: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
