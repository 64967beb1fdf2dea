"""The default run, ten times over in one process, each time with other seeds.

``python -m benchmarks.soak`` copies the project to ``build/soak`` and runs all four pipelines
there again and again. After each run it writes down the seconds, the memory that the process
holds, and the key figures, in ``build/soak.csv``; a soak that was cut off goes on with the next
seeds. At the end it prints Markdown: whether the memory is flat, and how far the figures spread.

A run takes minutes, so ten of them take hours on a small machine.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from kedro.framework.project import configure_project
from kedro.framework.session import KedroSession

from benchmarks.tables import table

ROOT = Path(__file__).parents[1]
FOLDER, RESULTS = ROOT / "build/soak", ROOT / "build/soak.csv"
RUNS = 10
# Between the seeds of one run and of the next; larger than the differences between seeds of a run.
STRIDE = 1000
SECTIONS = ("dataset_generation", "noise", "expert_training", "merging", "evaluation")
MEBIBYTE = 1 << 20


def other_seeds(parameters: Mapping[str, Any], offset: int) -> dict[str, Any]:
    """Only the seeds of nested parameters, each moved by ``offset``.

    Example:
        >>> other_seeds({"steps": 3, "seed": 7, "kid": {"seed": 41, "subsets": 2}}, 1000)
        {'seed': 1007, 'kid': {'seed': 1041}}
    """
    moved: dict[str, Any] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            if inner := other_seeds(value, offset):
                moved[key] = inner
        elif key == "seed":
            moved[key] = value + offset
    return moved


def make_project(folder: Path) -> None:
    """A copy of the project without artifacts, except those of earlier runs of the soak."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder)
    for name in ("conf", "data/01_raw", "src/safetydpo_kedro"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)


def run_once(folder: Path, number: int) -> dict[str, float]:
    """One default run; its seconds, the memory held afterwards in MiB, and the key figures."""
    started = time.perf_counter()
    with KedroSession.create(folder) as session:
        # As they are written: the context would give typed models.
        parameters = session.load_context().config_loader["parameters"]
    standard = {name: parameters[name] for name in SECTIONS}
    with KedroSession.create(
        folder, runtime_params=other_seeds(standard, STRIDE * number)
    ) as session:
        session.run()
    figures = pd.read_csv(folder / "data/08_reporting/key_figures.csv")
    gc.collect()
    return {
        "run": number,
        "seconds": time.perf_counter() - started,
        "memory": psutil.Process().memory_info().rss / MEBIBYTE,
        **dict(zip(figures["figure"], figures["value"], strict=True)),
    }


def report(results: pd.DataFrame) -> None:
    """Print the memory by run, then the lowest, median and highest of every figure."""
    rows = [[f"{r.run:.0f}", f"{r.seconds:.0f}", f"{r.memory:.0f}"] for r in results.itertuples()]
    table("Default runs in one process", "run | seconds | memory held afterwards, MiB", rows)
    figures = results.drop(columns=["run", "seconds", "memory"])
    spread = [
        [str(name), *(f"{value:.3g}" for value in (column.min(), column.median(), column.max()))]
        for name, column in figures.items()
    ]
    table("Key figures", "figure | lowest | median | highest", spread)


def main() -> None:
    """Do the runs that are not written down yet."""
    make_project(FOLDER)
    os.chdir(FOLDER)  # where the paths of the configuration begin
    configure_project("safetydpo_kedro")
    logging.getLogger("kedro").setLevel(logging.WARNING)
    rows = pd.read_csv(RESULTS).to_dict("records") if RESULTS.is_file() else []
    for number in range(len(rows), RUNS):
        rows.append(run_once(FOLDER, number))
        pd.DataFrame(rows).to_csv(RESULTS, index=False)
    report(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
