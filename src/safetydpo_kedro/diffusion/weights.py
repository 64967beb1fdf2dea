"""Other weights in place of a denoiser's own, for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def replaced(unet: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put weights in for the length of the block; afterwards all is as it was, bit for bit.

    Args:
        unet: the denoiser.
        weights: name in its ``state_dict()`` → weight, of any device and precision; those of the
            denoiser stay as they are.

    Raises:
        ValueError: a name that the denoiser lacks, or a weight of another shape.
    """
    own = unet.state_dict(keep_vars=True)
    for name, weight in weights.items():
        if name not in own:
            raise ValueError(
                f"weight '{name}' is not in the model: the weights belong to another model"
            )
        if weight.shape != own[name].shape:
            raise ValueError(
                f"weight '{name}' is {tuple(weight.shape)}, the model's is "
                f"{tuple(own[name].shape)}: the weights belong to another model"
            )
    originals = {name: own[name].data for name in weights}
    try:
        for name, weight in weights.items():
            # Device, precision and memory layout are those of the original.
            own[name].data = torch.empty_like(originals[name]).copy_(weight)
        yield
    finally:
        for name, original in originals.items():
            own[name].data = original
