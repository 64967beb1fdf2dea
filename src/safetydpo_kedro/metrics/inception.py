"""The Inception v3 network of FID, from a local file.

The published FIDs use Google's Inception of 2015, ported to PyTorch by torch-fidelity, with its
own resizing to 299 pixels (TensorFlow 1's bilinear; torchmetrics resizes in this way with
``antialias=False``). torch-fidelity downloads the weights, or unpickles a file without
restriction; here they come from safetensors, or from a pickle of tensors alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from safetydpo_kedro.artifacts import file_digest

FEATURES = "2048"
SOURCE = "weights-inception-2015-12-05-6726825d.pth of github.com/toshas/torch-fidelity"


class InceptionNetwork:
    """Images → the 2048 features of FID and KID (``pool3``).

    Args:
        path: the network's tensors: a ``.safetensors`` file (see :func:`convert_inception`), or
            torch-fidelity's ``.pth``, of which nothing but tensors is unpickled. Nothing is ever
            downloaded.
        device: torch device.
        batch_size: images in one forward pass.

    Attributes:
        name: network and file.
        weights_sha256: SHA-256 of the file, 64 hex digits.

    Raises:
        ValueError: there is no such file, or its tensors are not those of the network.
    """

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 64) -> None:
        path = Path(path)
        network = build_inception(_read(path), str(path))
        self.name = f"inception-v3-2015-12-05/{path.name}"
        self.weights_sha256 = file_digest(path)
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._network = network.to(self.device)

    @torch.inference_mode()
    def encode_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of images.

        Args:
            images: uint8 RGB, ``[N, H, W, 3]``, of any size.

        Returns:
            float32 ``[N, 2048]``.

        Raises:
            ValueError: there are no images, or they are not of that form.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
            raise ValueError(
                f"expected at least one uint8 RGB image [N, H, W, 3], "
                f"got {images.dtype} {images.shape}"
            )
        parts = []
        for start in range(0, len(images), self.batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + self.batch_size]))
            (features,) = self._network(batch.to(self.device).permute(0, 3, 1, 2).contiguous())
            parts.append(features.cpu().float())
        return torch.cat(parts).numpy()


def build_inception(tensors: Mapping[str, Tensor], origin: str) -> FeatureExtractorInceptionV3:
    """The network with given weights.

    Args:
        tensors: its state.
        origin: where they come from, for the error message.

    Raises:
        ValueError: the tensors are not those of the network.
    """
    # The constructor unpickles what it is given; this pickle is made here, and never a file.
    weights = io.BytesIO()
    torch.save(dict(tensors), weights)
    weights.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception", [FEATURES], weights)
    except RuntimeError as error:
        reason = str(error).strip().split("\n", 1)[-1].strip()
        raise ValueError(
            f"'{origin}' does not hold the Inception of FID: {_shortened(reason)}; bring {SOURCE}"
        ) from error


def convert_inception(path: Path) -> dict[str, Tensor]:
    """Tensors of torch-fidelity's ``.pth`` file, to be written as safetensors.

    The file is a pickle; nothing but tensors is unpickled.

    Args:
        path: the file.

    Returns:
        The network's state, each tensor contiguous, on the CPU.

    Raises:
        ValueError: there is no such file, it holds anything else, or not this network.
    """
    tensors = _read(Path(path))
    build_inception(tensors, str(path))
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, whichever network they belong to."""
    if not path.is_file():
        raise ValueError(f"no Inception weights at '{path}'; put {SOURCE} there")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a broken file fails in many ways, and is refused in one
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"'{path}' is not a file of tensors alone, and nothing else is opened: "
            f"{_shortened(reason)}; bring {SOURCE}"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"'{path}' holds no tensors by name; bring {SOURCE}")
    return dict(tensors)


def _shortened(reason: str, length: int = 300) -> str:
    """A network has hundreds of tensors, and an error may name them all."""
    return reason if len(reason) <= length else f"{reason[:length]} …"
