"""A project of four nodes for a cluster: numbers → squares, in shards → their sum → a report."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.framework.session import KedroSession
from kedro.pipeline import Node, Pipeline
from kedro.runner import AbstractRunner

logger = logging.getLogger("safetydpo_kedro.squares")

CATALOG = """
numbers: {type: pandas.CSVDataset, filepath: data/numbers.csv, save_args: {index: false}}
squares: {type: safetydpo_kedro.datasets.ShardedParquetDataset, path: data/squares}
cubes: {type: safetydpo_kedro.datasets.ShardedParquetDataset, path: data/cubes}
total: {type: pandas.CSVDataset, filepath: data/total.csv, save_args: {index: false}}
report: {type: text.TextDataset, filepath: data/report.md}
"""
PARAMETERS = "log: {log}\nshards: 6\nkill: null\nvictim: null\nfail: false\n"


def make_numbers(count: int) -> pd.DataFrame:
    logger.info("numbers are made by process %d", os.getpid())
    return pd.DataFrame({"number": range(count)})


def power(
    numbers: pd.DataFrame,
    log: str,
    kill: int | None = None,
    victim: int | None = None,
    fail: bool = False,
    *,
    exponent: int,
) -> dict[str, Any]:
    """One shard for each number. Number ``kill`` takes a process along the first time, its own."""

    def compute(number: int) -> pd.DataFrame:
        with Path(log).open("a") as file:
            file.write(f"{exponent} {number} {os.getpid()}\n")
        died = Path(log).with_name("died")
        if number == kill and not died.exists():
            died.touch()
            os.kill(victim or os.getpid(), signal.SIGKILL)
        if fail:
            raise ValueError(f"number {number} is not wanted")
        return pd.DataFrame({"power": [number**exponent]})

    return {f"{n:03d}": partial(compute, n) for n in numbers["number"]}


def square(
    numbers: pd.DataFrame, log: str, kill: int | None, victim: int | None, fail: bool
) -> dict[str, Any]:
    return power(numbers, log, kill, victim, fail, exponent=2)


def cube(numbers: pd.DataFrame, log: str) -> dict[str, Any]:
    return power(numbers, log, exponent=3)


def add_up(squares: pd.DataFrame, cubes: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"total": [int(squares["power"].sum() + cubes["power"].sum())]})


def write_report(total: pd.DataFrame) -> str:
    return f"Total: {total['total'][0]}"


def register_pipelines() -> dict[str, Pipeline]:
    switches = ["params:log", "params:kill", "params:victim", "params:fail"]
    pipeline = Pipeline(
        [
            Node(make_numbers, "params:shards", "numbers", name="make_numbers"),
            Node(square, ["numbers", *switches], "squares", name="square", tags=["gpu"]),
            Node(cube, ["numbers", "params:log"], "cubes", name="cube"),
            Node(add_up, ["squares", "cubes"], "total", name="add_up"),
            Node(write_report, "total", "report", name="write_report"),
        ]
    )
    return {"squares": pipeline, "__default__": pipeline}


class Project:
    """A project folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        for folder in ("conf/base", "conf/local", "data"):
            (path / folder).mkdir(parents=True)
        (path / ".telemetry").write_text("consent: false\n")
        (path / "conf/base/catalog.yml").write_text(CATALOG)
        (path / "conf/base/parameters.yml").write_text(PARAMETERS.format(log=path / "log.txt"))

    def run(self, runner: AbstractRunner, only_missing: bool = False, **parameters: Any) -> None:
        """Run the pipeline."""
        with KedroSession.create(self.path, runtime_params=parameters) as session:
            session.run(runner=runner, only_missing_outputs=only_missing)

    def computed(self) -> list[tuple[int, int, int]]:
        """Exponent, number and process of all shards that were begun, in order of time."""
        lines = (self.path / "log.txt").read_text().splitlines()
        return [tuple(map(int, line.split())) for line in lines]

    def artifacts(self) -> dict[str, bytes]:
        """Content of all files below ``data``, hidden ones left out."""
        files = [p for p in self.data.rglob("*") if p.is_file() and not p.name.startswith(".")]
        return {p.relative_to(self.data).as_posix(): p.read_bytes() for p in files}
