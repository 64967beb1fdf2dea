"""Expert training as people run it: killed again and again, it ends as if it had never been."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.runner import SequentialRunner
from safetensors.numpy import load_file

from safetydpo_kedro.pipelines.dataset_generation import create_pipeline as dataset_generation
from safetydpo_kedro.preference.history import METRICS

from ..processes import kedro, start
from ..worlds import (
    ROOT,
    add_parameters,
    base_catalog,
    base_parameters,
    neutral_prompts,
    prompt_pairs,
    tiny_pipeline,
)

STEPS = 12
NODES = [
    "draw_image_pairs",
    "draw_preservation_images",
    "cache_latents",
    "cache_preservation",
    "score_reference",
]
PARAMETERS = {
    "dataset_generation": {"drawing": {"sampling": {"steps": 1, "guidance_scale": 1.0}}},
    "noise": {"draws": 3, "caption_dropout": 0.2},
    "expert_training": {
        "steps": STEPS,
        "batch_size": 4,
        "lora": {"rank": 2},
        "preservation": {"rows": 2},
        "validation": {"every": 4, "pairs": 1, "images": 1, "sampling": {"steps": 1}},
        "checkpoints": {"every": 1},
    },
}
TIMES = ["samples_per_second"]
TIME_LIMIT = 60


class Project:
    """A folder with data and configuration, on which ``kedro run`` trains one expert."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "data/06_models/checkpoints/hate"
        files = {
            "globals.yml": {
                "inputs": str(folder / "data/01_raw"),
                "artifacts": str(folder / "data"),
            },
            "parameters.yml": PARAMETERS,
        }
        shutil.copytree(ROOT / "conf/base", folder / "conf/base")
        (folder / "conf/killed").mkdir()
        for name, content in files.items():
            (folder / "conf/killed" / name).write_text(yaml.safe_dump(content))

    def start(self) -> BaseProcess:
        command = ["run", "--pipelines", "expert_training", "--namespaces", "hate"]
        environment = ["--env", "killed", "--conf-source", str(self.folder / "conf")]
        return start(kedro, *command, *environment)

    def run_and_kill(self, when: Callable[[], bool]) -> np.ndarray:
        """Kill a run as soon as ``when`` is true; the history of its last whole checkpoint.

        The process is stopped while we look, so that what we see is what the kill hits.
        """
        process = self.start()
        end = time.monotonic() + TIME_LIMIT
        while process.is_alive() and time.monotonic() < end:
            time.sleep(0.0005)
            if when():
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(0.001)  # until it has really stopped
                if when():
                    break
                os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        newest = self.checkpoints / f"step-{self.newest():06d}"
        return load_file(newest / "tensors.safetensors")["state/history/values"]

    def newest(self) -> int:
        """Step of the last checkpoint, 0 if there is none."""
        return max((int(path.name[5:]) for path in self.checkpoints.glob("step-*")), default=0)

    def is_writing(self) -> bool:
        """Whether there is a checkpoint that is not in its place yet."""
        return any(path.suffix != ".removed" for path in self.checkpoints.glob(".step-*"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """All that expert training reads, made once from a tiny model."""
    folder = tmp_path_factory.mktemp("inputs")
    catalog = base_catalog(folder)
    catalog["base_model"].save(tiny_pipeline())
    catalog["train_pairs"].save(prompt_pairs(per_category=3))
    catalog["preservation_prompts"].save(neutral_prompts())
    pipeline = dataset_generation()
    add_parameters(catalog, base_parameters(**PARAMETERS), dataset_generation=pipeline)
    SequentialRunner().run(
        pipeline.filter(node_names=[f"dataset_generation.{name}" for name in NODES]), catalog
    )
    return folder


def some_time_after(project: Project, step: int) -> Callable[[], bool]:
    """True from a random moment on, soon after the checkpoint of ``step`` is there."""
    pause, seen = random.uniform(0.0, 0.05), []

    def is_time() -> bool:
        if not seen and project.newest() >= step:
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + pause

    return is_time


@pytest.mark.slow
def test_a_training_that_is_killed_ends_like_one_that_is_not(inputs, tmp_path):
    whole, killed = (
        Project(Path(shutil.copytree(inputs, tmp_path / name))) for name in ("whole", "killed")
    )
    unbroken = whole.start()

    states = [killed.run_and_kill(lambda: killed.newest() >= 2 and killed.is_writing())]
    assert killed.is_writing()
    soon = killed.newest() + random.randint(1, 3)
    states += [killed.run_and_kill(some_time_after(killed, soon))]
    states += [killed.run_and_kill(lambda: killed.newest() == STEPS)]
    assert not list(killed.folder.glob("data/06_models/experts/*.safetensors"))
    last = killed.start()
    for process in (last, unbroken):
        process.join(TIME_LIMIT)
        assert process.exitcode == 0

    for name in ("06_models/experts", "07_model_output/validation"):
        made, expected = (p.folder / f"data/{name}/hate.safetensors" for p in (killed, whole))
        assert made.read_bytes() == expected.read_bytes()
    history, expected = (
        pd.read_parquet(project.folder / "data/08_reporting/training/hate_history.parquet")
        for project in (killed, whole)
    )
    pd.testing.assert_frame_equal(history.drop(columns=TIMES), expected.drop(columns=TIMES))
    # No step was done twice: even the times are those that the killed runs measured.
    times = [state[:, METRICS.index("samples_per_second")] for state in states]
    done = [int(np.isfinite(values).sum()) for values in times]
    assert 2 <= done[0] < done[1] < done[2] == STEPS
    for values, steps in zip(times, done, strict=True):
        np.testing.assert_array_equal(history["samples_per_second"][:steps], values[:steps])
    assert not killed.checkpoints.exists()
    assert not whole.checkpoints.exists()
