from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro_datasets.pandas import CSVDataset
from pydantic import BaseModel

from safetydpo_kedro.artifacts import Provenance, recorded_fingerprint, sidecar
from safetydpo_kedro.datasets import DiffusionPipelineDataset
from safetydpo_kedro.datasets.freshness import expected_provenances, track


def add(first: int, second: int = 0) -> int:
    return first + second


def split(value: int) -> tuple[int, int]:
    return value, value


def fingerprint_of(node: Node, output: str = "out", **datasets) -> str:
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in datasets.items()})
    return expected_provenances(Pipeline([node]), catalog)[output].fingerprint


def test_the_names_of_data_sets_and_nodes_do_not_matter():
    one = fingerprint_of(Node(add, "x", "out", name="one"), x=1)
    assert fingerprint_of(Node(add, "y", "out", name="two"), y=1) == one


@pytest.mark.parametrize(
    "node",
    [
        Node(split, "x", ["out", "rest"]),
        Node(add, ["x", "x"], "out"),
        Node(partial(add, second=2), "x", "out", name="partial"),
        Node(add, {"first": "x"}, "out"),
    ],
)
def test_function_and_arguments_matter(node):
    assert fingerprint_of(node, x=1) != fingerprint_of(Node(add, "x", "out"), x=1)


class Named(BaseModel):
    path: Path

    @property
    def files(self):
        return (self.path,)


def test_the_content_of_files_that_a_parameter_names_matters(tmp_path):
    node = Node(add, "params:named", "out")
    named = Named(path=tmp_path / "weights")
    prints = []
    for content in ("one", "two", "one"):
        named.path.write_text(content)
        prints.append(fingerprint_of(node, **{"params:named": named}))
    assert prints[0] == prints[2] != prints[1]


def test_outputs_of_one_node_differ():
    node = Node(split, "x", ["out", "rest"])
    assert fingerprint_of(node, x=1) != fingerprint_of(node, "rest", x=1)


def test_objects_in_memory_that_cannot_be_named_are_new_in_every_run():
    node = Node(add, "x", "out")
    assert fingerprint_of(node, x=[1]) == fingerprint_of(node, x=[1])
    assert fingerprint_of(node, x=object()) != fingerprint_of(node, x=object())


def test_the_precision_of_a_model_matters_but_not_its_device(tmp_path):
    def fingerprint_with(**options) -> str:
        model = DiffusionPipelineDataset(filepath=str(tmp_path), **options)
        pipeline = Pipeline([Node(split, "model", ["out", "rest"])])
        return expected_provenances(pipeline, DataCatalog({"model": model}))["out"].fingerprint

    assert fingerprint_with(device="cpu") == fingerprint_with(device="cuda")
    assert fingerprint_with(dtype="float16") != fingerprint_with()


def test_a_tracked_data_set_keeps_its_class_and_its_books_in_another_process(tmp_path):
    path = tmp_path / "table.csv"
    dataset = CSVDataset(filepath=str(path))
    track(dataset, Provenance("f1", "node"))
    there = pickle.loads(pickle.dumps(dataset))
    assert type(there) is CSVDataset
    assert not there.exists()
    there.save(pd.DataFrame({"a": [1]}))
    assert there.exists()
    assert dataset.exists()
    assert recorded_fingerprint(sidecar(path)) == "f1"


def test_remote_data_sets_keep_kedros_own_check():
    dataset = CSVDataset(filepath="memory://bucket/table.csv")
    track(dataset, Provenance("f1"))
    dataset.save(pd.DataFrame({"a": [1]}))
    assert dataset.exists()
