"""LoRA adapters as plain factors in memory.

PEFT injects and trains adapters; merging, fingerprinting and reporting need them as named
matrices. :class:`LoraAdapter` is that view: module path inside the UNet → factors A and B. Files
are read and written by :mod:`safetydpo_kedro.diffusion.lora_files`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class LoraLayer:
    """Low-rank update of one linear layer or 2-D convolution: ``ΔW = scale · B A``.

    A convolution is a linear layer on patches: its weight ``[out, in, kh, kw]``, flattened to
    ``[out, in · kh · kw]``, multiplies what :func:`torch.nn.functional.unfold` gives. So factors
    are matrices for both, and only ``kernel`` tells them apart.

    Attributes:
        a: down projection, ``[rank, in_features]``; of a convolution ``[rank, in · kh · kw]``.
        b: up projection, ``[out_features, rank]``.
        scale: ``alpha / rank`` (or ``alpha / sqrt(rank)`` for rsLoRA).
        kernel: ``(kh, kw)`` of the convolution; ``None`` for a linear layer.

    Raises:
        ValueError: the factors do not multiply, or A's columns are no whole number of kernels.

    Example:
        >>> import torch
        >>> layer = LoraLayer(torch.ones(2, 27), torch.ones(5, 2), kernel=(3, 3))
        >>> tuple(layer.delta().shape), tuple(layer.weight_delta().shape)
        ((5, 27), (5, 3, 3, 3))
    """

    a: Tensor
    b: Tensor
    scale: float = 1.0
    kernel: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse factors that do not multiply, and a kernel that A does not have."""
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise ValueError(
                f"LoRA factors must be A [rank, in] and B [out, rank] of one rank, "
                f"got A {tuple(self.a.shape)} and B {tuple(self.b.shape)}"
            )
        if self.kernel is None:
            return
        if len(self.kernel) != 2 or min(self.kernel) < 1:
            raise ValueError(f"kernel must be (height, width), each at least 1, got {self.kernel}")
        if self.a.shape[1] % math.prod(self.kernel):
            raise ValueError(
                f"A of a convolution must be [rank, in · kh · kw], got {tuple(self.a.shape)}: "
                f"its {self.a.shape[1]} columns are no multiple of the kernel {self.kernel}"
            )

    @property
    def rank(self) -> int:
        """Inner dimension of the factorisation."""
        return self.a.shape[0]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight that ``ΔW`` is added to: ``(out, in)`` or ``(out, in, kh, kw)``."""
        n_out, n_in = self.b.shape[0], self.a.shape[1]
        if self.kernel is None:
            return n_out, n_in
        return n_out, n_in // math.prod(self.kernel), *self.kernel

    def delta(self) -> Tensor:
        """Dense weight update ``ΔW`` as a matrix, ``[out_features, columns of A]``."""
        return self.scale * (self.b @ self.a.to(self.b.dtype))

    def weight_delta(self) -> Tensor:
        """Dense weight update ``ΔW`` in the shape of the layer's weight."""
        return self.delta().reshape(self.weight_shape)


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA over named layers of a UNet.

    Attributes:
        layers: module path inside the UNet (``"mid_block...attn2.to_k"``) → factors.
        metadata: string pairs that travel in the file header (configuration, fingerprints).
    """

    layers: dict[str, LoraLayer]
    metadata: dict[str, str] = field(default_factory=dict)

    def scaled(self, strength: float) -> LoraAdapter:
        """The same adapter with every ``ΔW`` multiplied by ``strength``."""
        layers = {
            name: replace(layer, scale=layer.scale * strength)
            for name, layer in self.layers.items()
        }
        return LoraAdapter(layers, self.metadata)


def random_adapter(
    shapes: Mapping[str, tuple[int, ...]], rank: int, generator: torch.Generator
) -> LoraAdapter:
    """Gaussian factors for layers of the given weight shapes, for tests and benchmarks.

    Args:
        shapes: layer name → ``(out, in)``, or ``(out, in, kh, kw)`` of a convolution.
        rank: rank of every layer.
        generator: where the numbers come from.
    """
    layers = {}
    for name, (n_out, n_in, *kernel) in shapes.items():
        columns = n_in * math.prod(kernel)
        layers[name] = LoraLayer(
            torch.randn(rank, columns, generator=generator) / columns**0.5,
            torch.randn(n_out, rank, generator=generator) / rank**0.5,
            kernel=tuple(kernel) or None,
        )
    return LoraAdapter(layers)
