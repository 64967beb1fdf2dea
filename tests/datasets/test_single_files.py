from __future__ import annotations

import pytest
import torch
from kedro.io import DatasetError

from safetydpo_kedro.datasets import LoraAdapterDataset, SafetensorsDataset
from safetydpo_kedro.diffusion.lora import LoraAdapter, random_adapter


def test_lora_round_trip(tmp_path):
    adapter = random_adapter({"to_q": (4, 3)}, rank=2, generator=torch.Generator().manual_seed(0))
    dataset = LoraAdapterDataset(filepath=str(tmp_path / "hate.safetensors"))
    assert not dataset.exists()
    dataset.save(LoraAdapter(adapter.layers, {"rank": "2"}))
    loaded = dataset.load()
    assert dataset.exists()
    assert loaded.metadata == {"rank": "2"}
    assert torch.equal(loaded.layers["to_q"].delta(), adapter.layers["to_q"].delta())


def test_an_export_for_other_programs_is_not_read_back(tmp_path):
    adapter = random_adapter({"to_q": (4, 3)}, rank=2, generator=torch.Generator().manual_seed(0))
    dataset = LoraAdapterDataset(filepath=str(tmp_path / "x.safetensors"), key_format="kohya")
    dataset.save(adapter)
    assert dataset.exists()
    with pytest.raises(DatasetError, match="the adapter that it was made from"):
        dataset.load()
    with pytest.raises(ValueError, match="'webui'"):
        LoraAdapterDataset(filepath="x", key_format="webui")


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
