"""What Kedro-Viz shows of tensors, adapters, tables and images."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from safetydpo_kedro.datasets import (
    LoraAdapterDataset,
    OptionalDataset,
    SafetensorsDataset,
    ShardedImagesDataset,
    ShardedParquetDataset,
    ShardedSafetensorsDataset,
)
from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.images import encode_images

CHECKERS = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((8, 8)))[..., None] * np.full(3, 255)


@pytest.fixture
def images(tmp_path):
    dataset = ShardedImagesDataset(path=str(tmp_path / "images"), image_columns=["image"])
    pictures = np.repeat(CHECKERS[None].astype(np.uint8), 5, axis=0)
    table = pd.DataFrame({"prompt": [f"tree {i}" for i in range(5)], "features": [[0.0, 1.0]] * 5})
    dataset.save({"shard-00000": table.assign(image=encode_images(pictures, table["prompt"]))})
    return dataset


def sheet(preview):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(preview))).convert("L"), float)


def contrast(picture):
    """Spread of grey levels where the first image stands, without frame and caption."""
    return picture[-80:-20, 20:80].std()


def test_images_are_blurred_unless_told_otherwise(images):
    assert contrast(sheet(images.preview(blur="none"))) > 100
    assert contrast(sheet(images.preview())) < 10


def test_a_sheet_has_as_many_images_as_asked_for(images):
    assert sheet(images.preview(count=2)).shape[1] < sheet(images.preview(count=5)).shape[1]


def test_no_rows_give_no_picture(tmp_path):
    dataset = ShardedImagesDataset(path=str(tmp_path / "none"), image_columns=["image"])
    dataset.save(KeyedPlan({}, {}, ()))
    assert dataset.preview() == ""


def test_rows_without_images_and_vectors(images, tmp_path):
    plain = ShardedParquetDataset(path=str(tmp_path / "images"), image_columns=["image"])
    preview = plain.preview(nrows=2)
    assert preview["columns"] == ["prompt"] and preview["data"] == [["tree 0"], ["tree 1"]]


def test_missing_values_are_empty_cells(tmp_path):
    dataset = ShardedParquetDataset(path=str(tmp_path / "table"))
    dataset.save(
        {"shard-00000": pd.DataFrame({"fid": [1.5, float("nan")], "judge": ["q16", None]})}
    )
    assert json.loads(json.dumps(dataset.preview()))["data"] == [[1.5, "q16"], ["", ""]]


def test_tensors_are_listed_without_their_numbers(tmp_path):
    tensors = {"mean": torch.zeros(3, 2), "count": torch.ones(4, dtype=torch.int64)}
    one = SafetensorsDataset(filepath=str(tmp_path / "one.safetensors"))
    one.save(tensors)
    many = ShardedSafetensorsDataset(path=str(tmp_path / "many"))
    many.save({"shard-00000": tensors})
    expected = [["count", "[4]", "I64"], ["mean", "[3, 2]", "F32"]]
    assert one.preview()["data"] == many.preview()["data"] == expected


def test_layers_of_an_adapter_by_how_much_they_change(tmp_path):
    layers = {
        name: LoraLayer(torch.full((2, 3), size), torch.ones(4, 2))
        for name, size in (("down", 1.0), ("up", 2.0), ("mid", 0.0))
    }
    dataset = LoraAdapterDataset(filepath=str(tmp_path / "hate.safetensors"))
    dataset.save(LoraAdapter(layers))
    rows = dataset.preview(nrows=2)["data"]
    assert [row[0] for row in rows] == ["up", "down"]
    assert rows[0][1:3] == [2, "(4, 3)"]
    assert rows[0][3] == pytest.approx(torch.linalg.norm(layers["up"].delta()).item())


def test_what_is_not_there_has_no_preview(tmp_path):
    entry = {
        "type": "safetydpo_kedro.datasets.SafetensorsDataset",
        "filepath": str(tmp_path / "x.safetensors"),
    }
    dataset = OptionalDataset(dataset=entry)
    assert not hasattr(dataset, "preview")
    dataset.save({"x": torch.zeros(2)})
    assert dataset.preview()["data"] == [["x", "[2]", "F32"]]
