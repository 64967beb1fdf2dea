"""What an adapted layer multiplies its weight with: tokens of a linear layer, patches of a conv.

A convolution is a linear layer on patches (:func:`torch.nn.functional.unfold`), so both give rows
of the length of A, and every statistic over them is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from safetydpo_kedro.diffusion.lora import LoraLayer

AdaptedModule = nn.Linear | nn.Conv2d


def adapted_module(unet: nn.Module, name: str, by_expert: Mapping[str, LoraLayer]) -> AdaptedModule:
    """The linear layer or 2-D convolution that the experts adapt, without PEFT's wrapper.

    Raises:
        ValueError: there is no such module, ΔW does not fit it, or it is a convolution with
            groups or with a padding other than zeros.
    """
    expert, layer = next(iter(by_expert.items()))
    try:
        module = unet.get_submodule(name)
    except AttributeError as error:
        raise ValueError(
            f"expert '{expert}' adapts layer '{name}', which the model does not have; "
            f"profile experts on the base model they were trained on"
        ) from error
    base = getattr(module, "base_layer", module)
    if not isinstance(base, AdaptedModule):
        raise ValueError(
            f"layer '{name}' is a {type(base).__name__}; only linear layers and 2-D convolutions "
            f"can be profiled; leave it out of the experts' target modules"
        )
    if isinstance(base, nn.Conv2d) and (base.groups != 1 or base.padding_mode != "zeros"):
        raise ValueError(
            f"layer '{name}' is a convolution with groups={base.groups} and "
            f"padding_mode='{base.padding_mode}'; only groups=1 and zeros can be profiled; leave "
            f"it out of the experts' target modules"
        )
    if layer.weight_shape != tuple(base.weight.shape):
        raise ValueError(
            f"expert '{expert}', layer '{name}': ΔW has shape {layer.weight_shape}, but the "
            f"model's weight {tuple(base.weight.shape)}"
        )
    return base


def positions_per_row(module: AdaptedModule, x: Tensor) -> int:
    """Tokens, or places of the kernel, in one row of the layer's input."""
    if isinstance(module, nn.Conv2d):
        height, width = _output_size(module, x)
        return height * width
    return x[0].numel() // x.shape[-1]


def position_chunks(
    module: AdaptedModule, x: Tensor, positions: int, dtype: torch.dtype
) -> Iterator[Tensor]:
    """Inputs of a layer as rows that its weight matrix multiplies, part by part.

    Args:
        module: a linear layer or a convolution that :func:`adapted_module` takes.
        x: its input, ``[batch, ..., in]`` or ``[batch, in, height, width]``.
        positions: bound on the positions of a part, at least 1. The patches of a convolution
            overlap, and take ``kh · kw`` times the memory of what they are cut from; no more of
            them than these are made at once.
        dtype: of the result.

    Yields:
        ``[batch, ≤ positions, in]``, of a convolution ``[batch, ≤ positions, in · kh · kw]``.
    """
    if isinstance(module, nn.Conv2d):
        yield from _patches(module, x.to(dtype), positions)
    else:
        yield from x.reshape(x.shape[0], -1, x.shape[-1]).to(dtype).split(positions, dim=1)


def _patches(conv: nn.Conv2d, x: Tensor, positions: int) -> Iterator[Tensor]:
    """Patches of whole lines of the output if they fit, else of parts of one line."""
    height, width = _output_size(conv, x)
    padded = F.pad(x, _padding(conv))
    lines, columns = max(1, positions // width), min(width, positions)
    for top in range(0, height, lines):
        for left in range(0, width, columns):
            ends = (min(top + lines, height), min(left + columns, width))
            window = padded
            for axis, start, end in zip((0, 1), (top, left), ends, strict=True):
                reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
                length = (end - start - 1) * conv.stride[axis] + reach
                window = window.narrow(2 + axis, start * conv.stride[axis], length)
            patches = F.unfold(window, conv.kernel_size, conv.dilation, 0, conv.stride)
            yield patches.transpose(1, 2)


def _output_size(conv: nn.Conv2d, x: Tensor) -> tuple[int, int]:
    """Height and width of the convolution's output."""
    left, right, top, bottom = _padding(conv)
    sizes = (x.shape[-2] + top + bottom, x.shape[-1] + left + right)
    height, width = (
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, dilation, kernel, stride in zip(
            sizes, conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    )
    return height, width


def _padding(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Zeros on the left, on the right, above and below, as :func:`torch.nn.functional.pad`."""
    if conv.padding == "valid":
        return 0, 0, 0, 0
    if isinstance(conv.padding, str):  # "same": an odd zero goes to the right and below
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        vertical, horizontal = ((n // 2, n - n // 2) for n in total)
        return *horizontal, *vertical
    height, width = conv.padding
    return width, width, height, height
