from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from kedro.io import DatasetError

from safetydpo_kedro.datasets import (
    DiffusionPipelineDataset,
    LoraAdapterDataset,
    SafetensorsDataset,
)
from safetydpo_kedro.diffusion.lora import LoraAdapter, random_adapter


class FakePipeline:
    """Saves what a diffusers pipeline's directory is known by; may fail half-way."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def save_pretrained(self, path: Path, safe_serialization: bool) -> None:
        assert safe_serialization
        Path(path).mkdir(parents=True)
        (Path(path) / "unet.safetensors").write_text("weights")
        if self.fails:
            raise RuntimeError("disk full")
        (Path(path) / "model_index.json").write_text("{}")


@pytest.fixture
def model_loader(monkeypatch):
    """Replaces the model class by one that returns what it is asked for."""
    module = types.ModuleType("model")
    module.DiffusionModel = types.SimpleNamespace(
        from_pretrained=lambda source, dtype, device: (source, dtype, device)
    )
    monkeypatch.setitem(sys.modules, "safetydpo_kedro.diffusion.model", module)


def test_lora_round_trip(tmp_path):
    adapter = random_adapter({"to_q": (4, 3)}, rank=2, generator=torch.Generator().manual_seed(0))
    dataset = LoraAdapterDataset(filepath=str(tmp_path / "hate.safetensors"))
    assert not dataset.exists()
    dataset.save(LoraAdapter(adapter.layers, {"rank": "2"}))
    loaded = dataset.load()
    assert dataset.exists()
    assert loaded.metadata == {"rank": "2"}
    assert torch.equal(loaded.layers["to_q"].delta(), adapter.layers["to_q"].delta())


def test_missing_lora_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no LoRA file at"):
        LoraAdapterDataset(filepath=str(tmp_path / "hate.safetensors")).load()


def test_tensors_round_trip(tmp_path):
    dataset = SafetensorsDataset(filepath=str(tmp_path / "x.safetensors"))
    dataset.save({"x": torch.arange(3)})
    assert dataset.load()["x"].tolist() == [0, 1, 2]


def test_tensors_round_trip_with_metadata(tmp_path):
    dataset = SafetensorsDataset(filepath=str(tmp_path / "x.safetensors"), with_metadata=True)
    dataset.save(({"x": torch.arange(3)}, {"experts": ["hate", "sexual"]}))
    tensors, metadata = dataset.load()
    assert tensors["x"].tolist() == [0, 1, 2]
    assert metadata == {"experts": ["hate", "sexual"]}


def test_views_of_one_tensor_can_be_saved(tmp_path):
    whole = torch.arange(6)
    dataset = SafetensorsDataset(filepath=str(tmp_path / "x.safetensors"))
    dataset.save({"a": whole[:2], "b": whole[2:], "t": whole.view(2, 3).T})
    loaded = dataset.load()
    assert loaded["b"].tolist() == [2, 3, 4, 5]
    assert loaded["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_equal_tensors_give_equal_bytes(tmp_path):
    written = []
    for names in ("ab", "ba"):
        path = tmp_path / f"{names}.safetensors"
        dataset = SafetensorsDataset(filepath=str(path), with_metadata=True)
        dataset.save(({n: torch.ones(2) for n in names}, {n: n for n in names}))
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_missing_model_directory_is_named_with_what_to_do(tmp_path):
    dataset = DiffusionPipelineDataset(filepath=str(tmp_path / "model"), hint="Run make pretrain.")
    with pytest.raises(DatasetError, match=r"model \(model_index.*Run make pretrain"):
        dataset.load()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either filepath"),
        ({"filepath": "a", "hub_id": "b"}, "either filepath"),
        ({"filepath": "a", "dtype": "int8"}, "'int8'"),
    ],
)
def test_bad_model_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionPipelineDataset(**options)


def test_model_is_loaded_with_dtype_and_device(tmp_path, model_loader):
    dataset = DiffusionPipelineDataset(
        filepath=str(tmp_path / "model"), dtype="bfloat16", device="cpu"
    )
    dataset.save(FakePipeline())
    assert dataset.load() == (str(tmp_path / "model"), torch.bfloat16, "cpu")


def test_model_of_the_hub_is_loaded_by_its_name(model_loader):
    dataset = DiffusionPipelineDataset(hub_id="owner/model", device="cpu")
    assert dataset.load() == ("owner/model", torch.float32, "cpu")


def test_failed_save_keeps_the_old_model_and_leaves_nothing_else(tmp_path):
    dataset = DiffusionPipelineDataset(filepath=str(tmp_path / "model"))
    dataset.save(FakePipeline())
    with pytest.raises(DatasetError, match="disk full"):
        dataset.save(FakePipeline(fails=True))
    assert dataset.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]
