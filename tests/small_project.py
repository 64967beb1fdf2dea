"""A Kedro project of two pipelines and four nodes, for tests of incremental runs."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from kedro.framework.session import KedroSession
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner
from pydantic import BaseModel

CATALOG = """
words: {type: pandas.CSVDataset, filepath: data/words.csv}
table: {type: pandas.ParquetDataset, filepath: data/table.parquet}
shards: {type: safetydpo_kedro.datasets.ShardedParquetDataset, path: data/shards}
report: {type: text.TextDataset, filepath: data/report.md}
"""
PARAMETERS = """
log: {log}
table: {{repeats: 2}}
shards: {{size: 2}}
report: {{title: Counts}}
"""
ALL = ["make_table", "make_shards", "make_counts", "make_report"]


class TableParameters(BaseModel, extra="forbid"):
    repeats: int
    upper: bool = False


def note(log: str, name: str) -> None:
    """Record, across processes, that a node has run."""
    with Path(log).open("a") as file:
        file.write(f"{name}\n")


def make_table(words: pd.DataFrame, parameters: TableParameters, log: str) -> pd.DataFrame:
    note(log, "make_table")
    return pd.concat([words] * parameters.repeats, ignore_index=True)


def make_shards(table: pd.DataFrame, parameters: dict, log: str) -> dict:
    note(log, "make_shards")
    size = parameters["size"]
    return {f"{i:03d}": table.iloc[i : i + size] for i in range(0, len(table), size)}


def make_counts(shards: pd.DataFrame, log: str) -> dict:
    note(log, "make_counts")
    return shards["word"].value_counts().to_dict()


def make_report(counts: dict, parameters: dict, log: str) -> str:
    note(log, "make_report")
    return f"{parameters['title']}: {json.dumps(counts, sort_keys=True)}"


def register_pipelines() -> dict[str, Pipeline]:
    first = Pipeline(
        [
            Node(make_table, ["words", "params:table", "params:log"], "table", name="make_table"),
            Node(
                make_shards, ["table", "params:shards", "params:log"], "shards", name="make_shards"
            ),
        ]
    )
    second = Pipeline(
        [
            Node(make_counts, ["shards", "params:log"], "counts", name="make_counts"),
            Node(
                make_report, ["counts", "params:report", "params:log"], "report", name="make_report"
            ),
        ]
    )
    return {"first": first, "second": second, "__default__": first + second}


class Project:
    """A project folder; ``run`` returns the names of the nodes that ran."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.log = path / "log.txt"
        for folder in ("conf/base", "conf/local", "data"):
            (path / folder).mkdir(parents=True)
        (path / ".telemetry").write_text("consent: false\n")
        (path / "conf/base/catalog.yml").write_text(CATALOG)
        (path / "conf/base/parameters.yml").write_text(PARAMETERS.format(log=self.log))
        (self.data / "words.csv").write_text("word\nbomb\nballoon\nbomb\n")

    def run(self, *pipelines, runner=SequentialRunner, only_missing=True, **parameters):
        self.log.write_text("")
        with KedroSession.create(self.path, runtime_params=parameters) as session:
            session.run(
                pipeline_names=list(pipelines),
                runner=runner(),
                only_missing_outputs=only_missing,
            )
        return self.log.read_text().split()

    def manifest(self, name: str) -> dict:
        return json.loads((self.data / name).read_text())
