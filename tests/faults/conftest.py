"""How much is done to the project, and folders on small disks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kedro.framework.project import configure_project

from ..small_project import Project, register_pipelines
from .disks import mount


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--kills", type=int, default=4, help="of each pipeline, in the slow tests")
    group.addoption("--kill-seed", type=int, default=0, help="of the moments of killing")


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
