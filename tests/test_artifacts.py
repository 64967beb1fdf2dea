from __future__ import annotations

import os

import numpy as np
import pytest
from pydantic import BaseModel, Field

from safetydpo_kedro.artifacts import (
    Manifest,
    Provenance,
    content_digest,
    directory_digest,
    file_digest,
    fingerprint,
    intact_files,
    recorded_fingerprint,
    sidecar,
    write_atomically,
)


class Training(BaseModel):
    steps: int = 2
    rate: float = 0.1


@pytest.fixture
def artifact(tmp_path):
    """A file of five bytes with its manifest; the file is older than the manifest."""
    path = tmp_path / "table.csv"
    path.write_text("first")
    os.utime(path, (0, 0))
    Manifest.of(Provenance("f1", "make_table"), [path], tmp_path).write(sidecar(path))
    return path


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint_ignores_key_order_and_the_type_of_containers():
    assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_fingerprint_of_a_model_is_that_of_its_values():
    assert fingerprint(Training()) == fingerprint({"steps": 2, "rate": 0.1})
    assert fingerprint([Training(steps=3)]) != fingerprint([Training()])


def test_fingerprint_of_sets_and_arrays_depends_on_content_only():
    assert fingerprint({"b", "a"}) == fingerprint(["a", "b"])
    assert fingerprint(np.arange(5000)) != fingerprint(np.arange(5000)[::-1])


def test_directory_digest_sees_names_and_contents_but_not_hidden_files(tmp_path):
    (tmp_path / "a").write_text("1")
    before = directory_digest(tmp_path)
    (tmp_path / ".gitkeep").write_text("")
    assert directory_digest(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert directory_digest(tmp_path) != before


def test_content_digest_of_nothing_is_none(tmp_path):
    assert content_digest(tmp_path / "absent") is None


def test_fields_that_change_no_result_are_no_part_of_a_fingerprint():
    class Run(BaseModel):
        steps: int = 2
        workers: int = Field(1, exclude=True)

    assert fingerprint(Run(workers=1)) == fingerprint(Run(workers=4))


def test_manifest_round_trip(artifact):
    manifest = Manifest.read(sidecar(artifact))
    assert manifest.provenance == Provenance("f1", "make_table")
    assert manifest.files == {"table.csv": {"sha256": file_digest(artifact), "bytes": 5}}
    assert manifest.versions["safetydpo_kedro"] and manifest.versions["torch"]


def test_unchanged_artifact_has_its_recorded_fingerprint(artifact):
    assert recorded_fingerprint(sidecar(artifact)) == "f1"


def test_touched_artifact_is_still_intact(artifact):
    os.utime(artifact)
    assert recorded_fingerprint(sidecar(artifact)) == "f1"


@pytest.mark.parametrize("content", ["other", "longer than before"])
def test_edited_artifact_is_not_what_its_manifest_states(artifact, content):
    artifact.write_text(content)
    later = sidecar(artifact).stat().st_mtime + 10
    os.utime(artifact, (later, later))
    assert intact_files(sidecar(artifact)) == ([], ["table.csv"])
    assert recorded_fingerprint(sidecar(artifact)) is None


def test_missing_artifact_has_no_recorded_fingerprint(artifact):
    artifact.unlink()
    assert recorded_fingerprint(sidecar(artifact)) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"fingerprint": "f1"}'])
def test_unreadable_manifest_counts_as_none(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_text(content)
    assert Manifest.read(path) is None


def test_a_manifest_with_bytes_that_are_no_text_counts_as_none(artifact):
    sidecar(artifact).write_bytes(b"\xff" + sidecar(artifact).read_bytes()[1:])
    assert Manifest.read(sidecar(artifact)) is None
