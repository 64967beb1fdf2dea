"""An image classifier as a catalog entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kedro.io import AbstractDataset, DatasetError
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

TYPE = "safetydpo_kedro.datasets.ImageClassifierDataset"


def dataset(path, **options) -> AbstractDataset:
    entry = {"type": TYPE, "filepath": str(path), **options}
    return AbstractDataset.from_config("extra_judge", entry)


def save_classifier(path) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    config = ViTConfig(**sizes, num_hidden_layers=1, image_size=16, patch_size=8)
    ViTForImageClassification(config).save_pretrained(path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(path)


def test_a_directory_is_loaded_as_a_classifier(tmp_path):
    entry = dataset(tmp_path / "judge", device="cpu", batch_size=2)
    assert not entry.exists()
    save_classifier(tmp_path / "judge")
    assert entry.exists()
    judge = entry.load()
    assert (judge.batch_size, judge.device) == (2, torch.device("cpu"))
    assert judge.classify(np.zeros((3, 20, 20, 3), np.uint8)).shape == (3, 2)


def test_where_it_may_be_missing_it_loads_as_none(tmp_path):
    wrapped = {"type": TYPE, "filepath": str(tmp_path / "judge")}
    kind = "safetydpo_kedro.datasets.OptionalDataset"
    entry = AbstractDataset.from_config("extra_judge", {"type": kind, "dataset": wrapped})
    assert entry.load() is None
    save_classifier(tmp_path / "judge")
    assert entry.load().labels == ("LABEL_0", "LABEL_1")


def test_a_missing_directory_is_named_with_the_remedy(tmp_path):
    entry = dataset(tmp_path / "judge", hint="Bring one.")
    with pytest.raises(DatasetError, match=r"judge \(config.json is not there\). Bring one"):
        entry.load()


def test_a_directory_without_weights_says_so(tmp_path):
    save_classifier(tmp_path / "judge")
    (tmp_path / "judge" / "model.safetensors").unlink()
    with pytest.raises(DatasetError, match="no safetensors weights"):
        dataset(tmp_path / "judge").load()


def test_it_is_read_only(tmp_path):
    with pytest.raises(DatasetError, match="read, and not written"):
        dataset(tmp_path / "judge").save(1)
