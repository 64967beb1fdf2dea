from __future__ import annotations

import pickle

import pandas as pd
import pytest
from kedro.io import DataCatalog, DatasetError

from safetydpo_kedro.artifacts import Provenance, recorded_fingerprint, sidecar
from safetydpo_kedro.datasets import LocalPathDataset, OptionalDataset, ShardedParquetDataset
from safetydpo_kedro.datasets.freshness import free_input_fingerprint, manifest_path, track


@pytest.fixture
def path(tmp_path):
    return tmp_path / "table.parquet"


@pytest.fixture
def dataset(path):
    entry = {"type": "pandas.ParquetDataset", "filepath": str(path)}
    config = {"pairs": {"type": "safetydpo_kedro.datasets.OptionalDataset", "dataset": entry}}
    return DataCatalog.from_config(config).get("pairs")


def test_nothing_loads_as_none_and_something_as_it_is(dataset, path):
    assert not dataset.exists()
    assert dataset.load() is None
    table = pd.DataFrame({"a": [1, 2]})
    dataset.save(table)
    assert dataset.exists() and path.is_file()
    pd.testing.assert_frame_equal(dataset.load(), table)


def test_the_fingerprint_is_that_of_the_wrapped_file(dataset, path):
    assert free_input_fingerprint(dataset) == "missing"
    dataset.save(pd.DataFrame({"a": [1]}))
    first = free_input_fingerprint(dataset)
    dataset.save(pd.DataFrame({"a": [2]}))
    assert len({first, free_input_fingerprint(dataset), "missing"}) == 3


def test_a_tracked_one_keeps_its_books_and_still_loads_what_is_stale(dataset, path):
    dataset.save(pd.DataFrame({"a": [1]}))
    track(dataset, Provenance("f1", "node"))
    there = pickle.loads(pickle.dumps(dataset))
    assert not there.exists()
    assert len(there.load()) == 1
    there.save(pd.DataFrame({"a": [1]}))
    assert there.exists()
    assert recorded_fingerprint(sidecar(path)) == free_input_fingerprint(there) == "f1"


def test_a_broken_file_is_an_error_and_not_none(dataset, path):
    path.write_bytes(b"no table")
    with pytest.raises(DatasetError):
        dataset.load()


def test_a_wrapped_folder_of_shards_is_tracked_by_its_own_manifest(tmp_path):
    shards = ShardedParquetDataset(path=str(tmp_path / "shards"))
    dataset = OptionalDataset(dataset=shards)
    assert dataset.load() is None
    assert manifest_path(dataset) == shards.manifest_path
    track(dataset, Provenance("f1", "node"))
    dataset.save({"shard-0": lambda: pd.DataFrame({"a": [1]})})
    assert dataset.exists() and len(dataset.load()) == 1
    track(dataset, Provenance("f2", "node"))
    assert not dataset.exists()


def test_a_local_path_is_fresh_as_long_as_its_content_is_the_same(tmp_path):
    path = tmp_path / "file.csv"
    dataset = LocalPathDataset(filepath=str(path))
    assert dataset.load() == path and not dataset.exists()
    assert free_input_fingerprint(dataset) == "missing"
    fingerprints = set()
    for text in ("x", "y", "x"):
        path.write_text(text)
        assert dataset.load() == path and dataset.exists()
        fingerprints.add(free_input_fingerprint(dataset))
    assert len(fingerprints) == 2
    with pytest.raises(DatasetError, match="not written"):
        dataset.save("x")


def test_a_local_path_may_have_one_of_several_suffixes(tmp_path):
    dataset = LocalPathDataset(filepath=str(tmp_path / "copro"), suffixes=[".json", ".csv"])
    assert dataset.load() == tmp_path / "copro.json" and not dataset.exists()
    (tmp_path / "copro.csv").write_text("x")
    assert dataset.load() == tmp_path / "copro.csv" and dataset.exists()
    (tmp_path / "copro.json").write_text("x")
    assert dataset.load() == tmp_path / "copro.json"
