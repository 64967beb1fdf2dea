from __future__ import annotations

import datasets
import pandas as pd
import pytest
from kedro.io import DatasetError

from safetydpo_kedro.datasets import ShardedParquetDataset


@pytest.fixture
def shards(tmp_path) -> ShardedParquetDataset:
    return ShardedParquetDataset(path=str(tmp_path / "images"), image_columns=["image"])


def rows(png: bytes, category: str | None, count: int = 2) -> pd.DataFrame:
    image = {"bytes": png, "path": None}
    return pd.DataFrame({"category": [category] * count, "image": [image] * count, "seed": 7})


def test_tables_are_joined_with_a_new_index(shards, red_png):
    shards.save({"a": rows(red_png, "hate"), "b": lambda: rows(red_png, "sexual", 1)})
    table = shards.load()
    assert list(table.index) == [0, 1, 2]
    assert list(table["category"]) == ["hate", "hate", "sexual"]
    assert table["image"][2]["bytes"] == red_png


def test_images_are_read_when_they_are_needed_and_can_be_written_again(shards, red_png, tmp_path):
    shards.save({"a": rows(red_png, "hate"), "b": rows(red_png, "sexual", 1)})
    table = shards.load()
    copy = ShardedParquetDataset(path=str(tmp_path / "copy"), image_columns=["image"])
    copy.save({"a": table.iloc[[2, 0]]})
    assert [dict(image) for image in copy.load()["image"]] == [{"bytes": red_png, "path": None}] * 2
    for file in (tmp_path / "images").glob("*.parquet"):
        file.unlink()
    with pytest.raises(FileNotFoundError):
        table["image"][0]["bytes"]


def test_hugging_face_datasets_opens_the_shards_as_images(shards, red_png, tmp_path):
    # The first shard knows no category: its column must still hold text, not nothing.
    shards.save({"a": rows(red_png, None), "b": rows(red_png, "hate", 1)})
    files = sorted(str(path) for path in (tmp_path / "images").glob("*.parquet"))
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf")
    )
    assert loaded.features["image"] == datasets.Image()
    assert loaded["category"][:] == [None, None, "hate"]
    assert loaded[2]["image"].getpixel((0, 0)) == (255, 0, 0)


def test_equal_tables_give_equal_bytes(shards, red_png, tmp_path):
    shards.save({"a": rows(red_png, "hate"), "b": rows(red_png, "hate")})
    first, second = sorted((tmp_path / "images").glob("*.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_a_table_without_the_image_column_is_refused(shards):
    with pytest.raises(DatasetError, match=r"image_columns \['image'\] are not in the table"):
        shards.save({"a": pd.DataFrame({"seed": [1]})})
