"""Folders of images as a catalog entry."""

from __future__ import annotations

import numpy as np
import pytest
from kedro.io import DatasetError
from PIL import Image

from safetydpo_kedro.datasets import ImageFolderDataset, OptionalDataset
from safetydpo_kedro.datasets.freshness import free_input_fingerprint
from safetydpo_kedro.images import decode_images


def put(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


@pytest.fixture
def folder(tmp_path):
    """Colours by name: red comes first in its folder, whatever order the disk has them in."""
    folder = tmp_path / "reference"
    for name, colour in {"b.png": "lime", "a.webp": "red", "c.JPG": "blue"}.items():
        put(folder / "coco" / name, colour)
    put(folder / "art" / "1.jpeg", "white")
    (folder / "coco" / "captions.txt").write_text("not an image")
    put(folder / "coco" / ".hidden.png", "black")
    (folder / ".cache").mkdir()
    return folder


def test_images_are_listed_by_benchmark_and_name(folder):
    table = ImageFolderDataset(path=str(folder)).load()
    assert table.columns.tolist() == ["benchmark", "image"]
    assert table["benchmark"].tolist() == ["art", "coco", "coco", "coco"]
    names = [image["path"].rsplit("/")[-1] for image in table["image"]]
    assert names == ["1.jpeg", "a.webp", "b.png", "c.JPG"]
    pixels = decode_images(table["image"])
    assert pixels.shape == (4, 6, 8, 3)
    expected = [[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    np.testing.assert_allclose(pixels[:, 3, 4], expected, atol=8)  # JPEG and WebP are lossy


def test_an_image_is_read_when_somebody_looks(folder):
    table = ImageFolderDataset(path=str(folder)).load()
    broken = folder / "coco" / "a.webp"
    broken.write_bytes(b"broken")
    assert len(table["image"].iloc[1]) == 2 and set(table["image"].iloc[1]) == {"bytes", "path"}
    with pytest.raises(ValueError, match=r"coco/a\.webp' cannot be read"):
        decode_images(table["image"])
    assert decode_images(table["image"].iloc[2:]).shape[0] == 2
    with pytest.raises(KeyError):
        table["image"].iloc[0]["pixels"]


def test_another_image_makes_it_another_input(folder):
    dataset = ImageFolderDataset(path=str(folder))
    before = free_input_fingerprint(dataset)
    assert free_input_fingerprint(ImageFolderDataset(path=str(folder))) == before
    put(folder / "coco" / "b.png", "black")
    changed = free_input_fingerprint(dataset)
    (folder / "art" / "1.jpeg").rename(folder / "art" / "2.jpeg")
    assert len({before, changed, free_input_fingerprint(dataset)}) == 3


def test_it_may_be_optional(tmp_path, folder):
    def entry(path):
        kind = "safetydpo_kedro.datasets.ImageFolderDataset"
        return OptionalDataset(dataset={"type": kind, "path": str(path)})

    assert entry(tmp_path / "nowhere").load() is None
    assert len(entry(folder).load()) == 4


def test_wrong_layouts_are_explained(tmp_path):
    folder = tmp_path / "reference"
    dataset = ImageFolderDataset(path=str(folder))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"no folder of images at .*reference/<benchmark>/"):
        dataset.load()
    folder.mkdir()
    with pytest.raises(DatasetError, match=r"has no folder for a benchmark; it is empty: lay"):
        dataset.load()
    put(folder / "001.png", "red")
    with pytest.raises(DatasetError, match=r"its images, such as 001\.png, are in no folder: lay"):
        dataset.load()
    (folder / "coco").mkdir()
    with pytest.raises(DatasetError, match=r"no images in .*coco: it should hold \*\.png, \*\.jpg"):
        dataset.load()


def test_it_is_only_read(folder):
    dataset = ImageFolderDataset(path=str(folder))
    with pytest.raises(DatasetError, match="is read, and not written"):
        dataset.save(dataset.load())
