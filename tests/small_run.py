"""One finished run of all default pipelines on the pictogram world, shared by the whole suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).parents[1]
# The smallest budgets with which every artifact comes about; figures of such a run mean nothing.
PARAMETERS = {
    "dataset_generation": {
        "prompt_writing": {"pairs_per_concept": 24},
        "pair_split": {"train_per_concept": 1, "test_per_concept": 1},
        "neutral_split": {"train_per_concept": 1, "test_per_concept": 1},
        "drawing": {"sampling": {"steps": 4}},
    },
    "expert_training": {
        "steps": 2,
        "batch_size": 2,
        "warmup_steps": 1,
        "preservation": {"rows": 2},
        "validation": {"every": 2, "pairs": 2, "images": 2, "sampling": {"steps": 2}},
    },
    "all_single": {
        "expert_training": {
            "steps": 2,
            "batch_size": 2,
            "preservation": {"rows": 2},
            "validation": {"every": 2, "pairs": 2},
        }
    },
    "merging": {
        "profile": {"inputs": 14, "shard_size": 14},
        "fitting": {"inputs": 14, "steps": 2, "batch_size": 4},
    },
    "evaluation": {
        "benchmarks": {"take": {"safe": 7, "neutral": 6}},
        "drawing": {"sampling": {"steps": 2}},
        "baselines": {
            "concepts": {"per_concept": 1, "preserved": 8},
            "esd_u": {"steps": 1, "sampling_steps": 2, "batch_size": 2},
        },
        "kid": {"subsets": 2, "subset_size": 5},
        "bootstrap": {"resamples": 20},
    },
}


def make_small_project(folder: Path) -> None:
    """A copy of the project without artifacts, in which ``kedro`` commands take small budgets.

    Args:
        folder: a new folder; its ``conf/local`` states the budgets.
    """
    folder.mkdir(parents=True)
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    shutil.copytree(ROOT / "data/01_raw", folder / "data/01_raw")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    (folder / "src").mkdir()
    (folder / "src/safetydpo_kedro").symlink_to(ROOT / "src/safetydpo_kedro")
    (folder / "conf/local").mkdir()
    (folder / "conf/local/parameters.yml").write_text(yaml.safe_dump(PARAMETERS))


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a ``kedro`` command in a project folder, on one thread.

    Raises:
        AssertionError: it failed; the message is what it printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A project folder after ``kedro run``, the same for all workers and not to be changed.

    Who comes first makes it, the others wait. ``kedro run --only-missing-outputs`` finds
    everything fresh there.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    project, done = shared / "small_run", shared / "small_run.done"
    with FileLock(shared / "small_run.lock"):
        if not done.exists():
            make_small_project(project)
            kedro(project, "run")
            done.touch()
    return project
