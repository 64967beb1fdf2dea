"""Artifacts on remote storage: unit tests in memory, runs against an S3 server of this machine."""

from __future__ import annotations

import io
import json
import pickle
from functools import partial

import fsspec
import pandas as pd
import pytest
import torch
import yaml
from kedro.framework.project import configure_project
from kedro.io import DataCatalog
from kedro.runner import ParallelRunner, SequentialRunner, ThreadRunner

from safetydpo_kedro.artifacts import (
    Manifest,
    Provenance,
    content_digest,
    intact_files,
    recorded_fingerprint,
    sidecar,
    write_atomically,
)
from safetydpo_kedro.datasets import (
    ClipModelDataset,
    ImageFolderDataset,
    SafetensorsDataset,
    ShardedParquetDataset,
    ShardedSafetensorsDataset,
)
from safetydpo_kedro.datasets.freshness import artifact_path, free_input_fingerprint, track
from safetydpo_kedro.parameters import CheckpointParameters
from safetydpo_kedro.runners import DaskRunner
from safetydpo_kedro.storage import files_below, local_copy, location, replace_folder

from .. import small_project
from ..s3_server import BUCKET, SECRET, contents
from ..small_project import ALL, Project, register_pipelines
from ..small_run import kedro, make_small_project
from ..worlds import tiny_clip


@pytest.fixture
def folder(tmp_path):
    """An empty folder on storage in memory."""
    yield location(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def artifact(folder):
    """A file of five bytes on storage, with its manifest."""
    path = folder / "table.csv"
    path.write_text("first")
    Manifest.of(Provenance("f1", "make_table"), [path], folder).write(sidecar(path))
    return path


# Places, without a server


def test_a_path_without_a_protocol_stays_a_path(tmp_path):
    assert location("data/x.csv") == location("data") / "x.csv"
    assert location(f"file://{tmp_path}/x.csv") == tmp_path / "x.csv"


def test_unknown_storage_is_refused():
    with pytest.raises(ValueError, match="cannot use nowhere://bucket/x: Protocol not known"):
        location("nowhere://bucket/x")


def test_a_write_that_fails_leaves_the_object_as_it_was(folder):
    path = folder / "deep" / "file.txt"
    with write_atomically(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert files_below(folder) == [path]


def test_a_folder_has_the_digest_that_it_has_on_disk(folder, tmp_path):
    for name in ("a/b.txt", "a-b.txt", "a/.hidden", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
        with write_atomically(folder / name) as temporary:
            temporary.write_text(name)
    assert content_digest(folder) == content_digest(tmp_path)
    assert content_digest(folder / "c.txt") == content_digest(tmp_path / "c.txt")
    assert content_digest(folder / "absent") is None


def test_an_artifact_is_what_its_manifest_says(artifact):
    assert recorded_fingerprint(sidecar(artifact)) == "f1"


@pytest.mark.parametrize("change", ["other", "fir", None])
def test_a_changed_a_truncated_and_a_removed_object_are_noticed(artifact, change):
    if change is None:
        artifact.unlink()
    else:
        artifact.write_text(change)
    assert intact_files(sidecar(artifact)) == ([], ["table.csv"])
    assert recorded_fingerprint(sidecar(artifact)) is None


def test_the_same_bytes_written_again_are_the_same_artifact(artifact):
    artifact.write_text("first")
    assert recorded_fingerprint(sidecar(artifact)) == "f1"


def test_a_local_copy_follows_the_object(artifact):
    first = local_copy(artifact)
    assert (first.name, first.read_text()) == ("table.csv", "first")
    assert local_copy(artifact) == first
    artifact.write_text("other")
    assert local_copy(artifact).read_text() == "other"
    with pytest.raises(FileNotFoundError, match="nothing at memory:"):
        local_copy(artifact.parent / "absent")


def test_a_folder_is_replaced_and_copied_as_a_whole(folder, tmp_path):
    made = tmp_path / "made"
    (made / "unet").mkdir(parents=True)
    (made / "index.json").write_text("{}")
    (made / "unet" / "weights").write_text("w")
    place = folder / "model"
    for name in ("index.json", "old/weights"):
        with write_atomically(place / name) as temporary:
            temporary.write_text("old")
    replace_folder(made, place, last="index.json")
    assert contents(local_copy(place)) == contents(made)


# Data sets


def test_shards_are_resumed_one_by_one(folder):
    dataset = ShardedParquetDataset(path=str(folder / "shards"))
    dataset.expect(Provenance("f1"))
    made = []

    def shard(name):
        made.append(name)
        return pd.DataFrame({"name": [name]})

    def plan():
        return {name: lambda name=name: shard(name) for name in "abc"}

    dataset.save(plan())
    assert dataset.exists() and list(dataset.load()["name"]) == ["a", "b", "c"]
    (folder / "shards" / "b.parquet").unlink()
    assert not dataset.exists()
    dataset.save(plan())
    assert made == ["a", "b", "c", "b"] and dataset.exists()
    stale = ShardedParquetDataset(path=str(folder / "shards"))
    stale.expect(Provenance("f2"))
    assert not stale.exists()
    assert list(dataset.load()["name"]) == ["a", "b", "c"]


def test_tensors_are_read_from_storage(folder):
    file = SafetensorsDataset(filepath=str(folder / "t.safetensors"))
    file.save({"t": torch.arange(4)})
    assert torch.equal(file.load()["t"], torch.arange(4))
    shards = ShardedSafetensorsDataset(path=str(folder / "shards"), mapped=True)
    shards.save({"a": {"t": torch.zeros(2)}, "b": {"t": torch.ones(1)}})
    assert shards.load()["t"][[1, 2]].tolist() == [0, 1]
    assert pickle.loads(pickle.dumps(shards)).exists()


def test_images_are_read_from_storage(folder, red_png):
    (folder / "coco").mkdir(parents=True)
    (folder / "coco" / "1.png").write_bytes(red_png)
    table = ImageFolderDataset(path=str(folder)).load()
    assert table["benchmark"].tolist() == ["coco"]
    assert table["image"][0]["bytes"] == red_png


def test_a_clip_model_is_saved_to_storage(folder):
    model, config, tokenizer = tiny_clip()
    dataset = ClipModelDataset(filepath=str(folder / "clip"))
    dataset.save((model, config, tokenizer))
    assert dataset.exists()
    assert dataset.load().encode_texts(["a knife"]).shape[0] == 1


@pytest.mark.parametrize(
    ("kind", "data"),
    [("text.TextDataset", "text"), ("pandas.CSVDataset", pd.DataFrame({"a": [1]}))],
)
def test_kedros_own_data_sets_exist_with_their_manifest_only(folder, kind, data):
    catalog = DataCatalog.from_config(
        {"it": {"type": kind, "filepath": f"memory://{folder.path}/file"}}
    )
    dataset = catalog["it"]
    track(dataset, Provenance("f1"))
    dataset.save(data)
    assert dataset.exists()
    sidecar(artifact_path(dataset)).unlink()
    assert not dataset.exists()


def test_an_input_counts_by_its_content_wherever_it_lies(folder, tmp_path):
    (tmp_path / "in.csv").write_text("a\n1\n")
    (folder / "in.csv").write_text("a\n1\n")
    entries = {
        name: {"type": "pandas.CSVDataset", "filepath": f"{path}/in.csv"}
        for name, path in {"here": tmp_path, "there": f"memory://{folder.path}"}.items()
    }
    catalog = DataCatalog.from_config(entries)
    assert free_input_fingerprint(catalog["here"]) == free_input_fingerprint(catalog["there"])


def test_credentials_reach_the_storage_and_nothing_else(s3):
    config = {
        "type": "safetydpo_kedro.datasets.ShardedParquetDataset",
        "path": f"{s3}/shards",
        "credentials": "store",
    }
    catalog = DataCatalog.from_config(
        {"it": config}, credentials={"store": {"key": "KEY", "secret": SECRET}}
    )
    dataset = catalog["it"]
    dataset.expect(Provenance("f1"))
    dataset.save({"a": pd.DataFrame({"x": [1]})})
    assert dataset._path.storage_options["secret"] == SECRET
    assert SECRET not in f"{dataset} {dataset!r} {dataset._path!r} {catalog!r}"
    assert SECRET not in dataset.manifest_path.read_text()


def test_checkpoints_on_storage_are_refused():
    with pytest.raises(ValueError, match=r"s3://b/p is on remote storage.*`scratch`"):
        CheckpointParameters(directory="s3://b/p")


# Runs


@pytest.fixture
def project(tmp_path, monkeypatch, s3) -> Project:
    """The small project with its artifacts in the bucket."""
    from safetydpo_kedro import pipeline_registry

    monkeypatch.setattr(pipeline_registry, "register_pipelines", register_pipelines)
    configure_project("safetydpo_kedro")
    catalog = small_project.CATALOG.replace("data/", f"{s3}/")
    monkeypatch.setattr(small_project, "CATALOG", catalog.replace(f"{s3}/words", "data/words"))
    return Project(tmp_path)


@pytest.mark.parametrize("runner", [SequentialRunner, ThreadRunner, ParallelRunner])
def test_a_second_run_has_nothing_to_do(project, runner):
    assert project.run(runner=runner) == ALL
    assert project.run(runner=runner) == []


@pytest.mark.slow
def test_workers_of_a_cluster_share_the_storage(project, s3):
    """What they need of an artifact comes from there, and nothing else lies anywhere."""
    catalog = project.path / "conf/base/catalog.yml"
    counts = f"counts: {{type: json.JSONDataset, filepath: {s3}/counts.json}}\n"
    catalog.write_text(catalog.read_text() + counts)
    runner = partial(DaskRunner, workers=2)
    assert set(project.run(runner=runner)) == set(ALL)
    assert location(f"{s3}/report.md").read_text() == 'Counts: {"balloon": 2, "bomb": 4}'
    assert project.run(runner=runner) == []
    location(f"{s3}/shards/002.parquet").unlink()
    assert set(project.run(runner=runner)) == {"make_shards"}
    assert [path.name for path in project.data.iterdir()] == ["words.csv"]


def test_a_removed_and_a_truncated_object_are_made_again(project, s3):
    project.run()
    objects = fsspec.filesystem("s3", use_listings_cache=False)
    shards = [path for path in objects.find(f"{s3}/shards") if path.endswith(".parquet")]
    before = {path: objects.info(path)["LastModified"] for path in shards}
    objects.rm(shards[0])
    assert project.run() == ["make_shards"]
    assert {path: objects.info(path)["LastModified"] for path in shards[1:]} == {
        path: before[path] for path in shards[1:]
    }
    objects.pipe_file(f"{s3}/table.parquet", objects.cat_file(f"{s3}/table.parquet")[:-1])
    assert project.run() == ["make_table"]
    assert project.run(shards={"size": 3}) == ["make_shards", "make_counts", "make_report"]


def test_storage_out_of_reach_stops_the_run_before_any_node(project, s3):
    catalog = project.path / "conf/base/catalog.yml"
    catalog.write_text(catalog.read_text().replace(s3, "s3://no-such-bucket"))
    with pytest.raises(ValueError, match=r"cannot write to s3://no-such-bucket.*create the bucket"):
        project.run()
    assert project.log.read_text() == ""


# They say how fast a training was, so their bytes differ from run to run.
TIMED = ("_history.parquet", "_history.parquet.manifest.json")


def plain(content: bytes) -> bytes | dict:
    """A manifest without the versions of objects; anything else as it is."""
    if not content.startswith(b"{"):
        return content
    manifest = json.loads(content)
    if "fingerprint" in manifest:
        for record in manifest["files"].values():
            record.pop("version", None)
    return manifest


def table(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content)).drop(columns="samples_per_second", errors="ignore")


CLUSTER = ("--runner", "safetydpo_kedro.runners.DaskRunner", "--runner-params", "workers=2")


@pytest.mark.slow
@pytest.mark.parametrize("runner", [(), CLUSTER], ids=["one process", "cluster"])
def test_a_run_on_storage_makes_the_bytes_of_a_run_on_disk(finished_run, tmp_path, s3, runner):
    folder = tmp_path / "project"
    make_small_project(folder)
    globals_file = folder / "conf/local/globals.yml"
    globals_file.write_text(yaml.safe_dump({"artifacts": f"{s3}/small", "scratch": "data"}))
    kedro(folder, "run", *runner)
    again = kedro(folder, "run", *runner, "--only-missing-outputs")
    assert "Everything is fresh" in again.stdout + again.stderr

    made = tmp_path / "made"
    fsspec.filesystem("s3").get(f"{BUCKET}/small/", str(made), recursive=True)
    here, there = contents(finished_run / "data"), contents(made)
    assert len(there) > 100
    differing = {name for name, content in there.items() if plain(content) != plain(here[name])}
    histories = {name for name in there if name.endswith(TIMED)}
    assert differing <= histories
    for name in histories:
        if name.endswith(".parquet"):
            pd.testing.assert_frame_equal(table(there[name]), table(here[name]))
    assert SECRET.encode() not in b"".join(there.values())
    assert not [name for name in contents(folder / "data") if not name.startswith("01_raw/")]
