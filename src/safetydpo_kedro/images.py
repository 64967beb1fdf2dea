"""Images as encoded bytes, in the form that Hugging Face ``datasets`` calls ``Image``."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

# 8192 x 8192: no model here draws larger ones, and a small file may claim to be far larger.
MAX_PIXELS = 2**26


class StoredImage(Mapping[str, Any]):
    """An image in a Parquet file, read when its ``bytes`` or ``path`` is asked for.

    A table of a hundred thousand images is a table of names until somebody looks. Neighbours are
    read together: images asked for in the order of the file are read once.

    Args:
        file: the Parquet file.
        column: its column of structs ``{"bytes", "path"}``.
        row: position in the file.
    """

    __slots__ = ("_column", "_file", "_row")

    def __init__(self, file: Path, column: str, row: int) -> None:
        self._file = file
        self._column = column
        self._row = row

    def __getitem__(self, key: str) -> Any:
        structs = _image_column(self._file, self._column, self._file.stat().st_mtime_ns)
        return structs[self._row][key].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(("bytes", "path"))

    def __len__(self) -> int:
        return 2


class ImageFile(Mapping[str, Any]):
    """An image file, read when its ``bytes`` are asked for.

    Args:
        file: any format that Pillow reads.
    """

    __slots__ = ("_file",)

    def __init__(self, file: Path) -> None:
        self._file = file

    def __getitem__(self, key: str) -> Any:
        if key == "bytes":
            return self._file.read_bytes()
        if key == "path":
            return str(self._file)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("bytes", "path"))

    def __len__(self) -> int:
        return 2


@lru_cache(maxsize=4)
def _image_column(file: Path, column: str, modified: int) -> Any:
    """One column of one file, as of a modification time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(file, columns=[column]).column(0)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"column '{column}' of {file} cannot be read ({error}): the file is damaged; remove it "
            f"and run the node that makes it"
        ) from error


def encode_images(images: np.ndarray, names: Iterable[str]) -> list[dict[str, Any]]:
    """uint8 ``[N, H, W, 3]`` → N structs ``{"bytes": PNG, "path": "<name>.png"}``."""
    encoded = []
    for image, name in zip(images, names, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": f"{name}.png"})
    return encoded


def decode_images(encoded: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Structs of equally large images → uint8 ``[N, H, W, 3]``.

    Images stand as their EXIF data says, as in every viewer. Of an animation the first frame is
    taken, of 16 bits the upper eight.

    Raises:
        ValueError: an image cannot be read or has more than ``MAX_PIXELS``, or sizes differ; the
            message names the image.
    """
    images: list[np.ndarray] = []
    for item in encoded:
        images.append(_decoded(item))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"image '{item['path']}' is {images[-1].shape[:2]}, the others are "
                f"{images[0].shape[:2]}: images of one set must be equally large"
            )
    return np.stack(images)


def _decoded(item: Mapping[str, Any]) -> np.ndarray:
    content = item["bytes"]
    try:
        with Image.open(io.BytesIO(content)) as image:
            _check_size(image)
            return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise ValueError(
            f"image '{item['path']}' cannot be read: {error or type(error).__name__}; replace it "
            f"or take it out"
        ) from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are real numbers, and nobody knows which one is white")
    if image.mode.startswith("I"):  # Pillow would clip them, not scale them
        image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def is_image(content: bytes) -> bool:
    """Whether encoded bytes begin like an image of a size that is read; the rest is not looked at.

    Example:
        >>> is_image(b"GIF89a and no more")
        False
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            _check_size(image)
            return True
    except Exception:  # as in _decoded
        return False


def decode_batches(
    encoded: Iterable[Mapping[str, Any]], batch_size: int = 64
) -> Iterator[np.ndarray]:
    """Structs of images of any size → uint8 batches ``[n, H, W, 3]`` in their order.

    A batch ends where the size changes, so real images of many sizes need no resizing, and only
    one batch is in memory.
    """
    batch: list[np.ndarray] = []
    for item in encoded:
        (image,) = decode_images([item])
        if batch and (len(batch) == batch_size or image.shape != batch[0].shape):
            yield np.stack(batch)
            batch = []
        batch.append(image)
    if batch:
        yield np.stack(batch)
