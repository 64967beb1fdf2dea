"""From uint8 images to what a CLIP model reads, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms


def preprocess_images(images: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Resize, crop, scale and whiten a batch as open_clip's evaluation transform does.

    open_clip resizes one PIL image at a time; torchvision's antialiased resize of a uint8 batch
    differs from it by at most one grey level in rounding.

    Args:
        images: uint8 ``[N, 3, H, W]``.
        config: open_clip preprocessing: size, mean, std, interpolation, resize_mode.

    Returns:
        float32 ``[N, 3, size, size]``.

    Raises:
        ValueError: the images are not uint8, or the resize mode is not supported for their shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"expected uint8 RGB images [N, 3, H, W], got {images.dtype} {tuple(images.shape)}"
        )
    height, width = target_size(config)
    mode = config.get("resize_mode") or "shortest"
    same_shape = images.shape[2] * width == images.shape[3] * height
    if same_shape or mode == "squash":
        size = [height, width]
    elif mode == "shortest" and height == width:
        size = [height]  # one number: the shorter edge
    else:
        raise ValueError(
            f"resize_mode '{mode}' is not supported for {images.shape[2]}x{images.shape[3]} "
            f"images and a {height}x{width} model; draw square images, or use 'squash'"
        )
    bilinear = config.get("interpolation") == "bilinear"
    interpolation = InterpolationMode.BILINEAR if bilinear else InterpolationMode.BICUBIC
    images = transforms.resize(images, size, interpolation, antialias=True)
    images = transforms.center_crop(images, [height, width])
    pixels = transforms.to_dtype(images, torch.float32, scale=True)
    whitened: Tensor = transforms.normalize(pixels, list(config["mean"]), list(config["std"]))
    return whitened


def target_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the model's input, in pixels."""
    size = config["size"]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
