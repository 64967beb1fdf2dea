"""The network of FID as a catalog entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kedro.io import DatasetError
from safetensors.torch import load_file

from safetydpo_kedro.artifacts import file_digest
from safetydpo_kedro.datasets import InceptionDataset
from safetydpo_kedro.datasets.freshness import artifact_path
from safetydpo_kedro.metrics.inception import InceptionNetwork, convert_inception
from tests.metrics.test_inception import weights  # noqa: F401 - a fixture


def test_saved_tensors_load_as_the_network(tmp_path, weights):  # noqa: F811
    path = tmp_path / "folder" / "inception.safetensors"
    dataset = InceptionDataset(filepath=str(path), device="cpu", batch_size=5)
    assert not dataset.exists()
    tensors = convert_inception(weights)
    dataset.save(tensors)
    assert dataset.exists() and artifact_path(dataset) == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no temporary files
    written = load_file(path)
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)

    network = dataset.load()
    assert (network.batch_size, network.device.type) == (5, "cpu")
    assert network.weights_sha256 == file_digest(path)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = InceptionNetwork(weights).encode_images(images)
    np.testing.assert_array_equal(network.encode_images(images), expected)


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "inception.safetensors"
    path.write_bytes(b"as it was")
    with pytest.raises(DatasetError):
        InceptionDataset(filepath=str(path)).save({"weight": "no tensor"})
    assert path.read_bytes() == b"as it was" and list(tmp_path.iterdir()) == [path]


def test_a_published_file_is_read_and_not_overwritten(tmp_path, weights):  # noqa: F811
    path = tmp_path / "inception.pth"
    path.symlink_to(weights)
    dataset = InceptionDataset(filepath=str(path))
    assert dataset.load().name == "inception-v3-2015-12-05/inception.pth"
    with pytest.raises(DatasetError, match=r"must be named \*\.safetensors"):
        dataset.save(convert_inception(weights))
    assert path.is_symlink()


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    path = str(tmp_path / "inception.safetensors")
    with pytest.raises(DatasetError, match=r"no Inception weights at .*judge_conversion"):
        InceptionDataset(filepath=path).load()
    with pytest.raises(DatasetError, match=r"inception\.safetensors\. Ask for it\."):
        InceptionDataset(filepath=path, hint="Ask for it.").load()


def test_another_network_is_refused(tmp_path):
    dataset = InceptionDataset(filepath=str(tmp_path / "inception.safetensors"))
    dataset.save({"weight": torch.ones(1)})
    with pytest.raises(DatasetError, match="does not hold the Inception of FID"):
        dataset.load()
