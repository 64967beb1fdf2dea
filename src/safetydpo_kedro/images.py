"""Images as encoded bytes, in the form that Hugging Face ``datasets`` calls ``Image``."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image


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

    Raises:
        ValueError: an image cannot be read, or sizes differ; the message names the image.
    """
    images: list[np.ndarray] = []
    for item in encoded:
        try:
            with Image.open(io.BytesIO(item["bytes"])) as image:
                images.append(np.asarray(image.convert("RGB")))
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"image '{item['path']}' cannot be read: {error}") from error
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"image '{item['path']}' is {images[-1].shape[:2]}, the others are "
                f"{images[0].shape[:2]}: images of one set must be equally large"
            )
    return np.stack(images)
