"""What a denoiser reads beside the noised latents: named tensors, one row per prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Text conditioning of N prompts.

    Attributes:
        tensors: name → ``[N, ...]``. Every family has ``embedding`` ``[N, tokens, width]``; SDXL
            adds ``pooled`` ``[N, width]``. Which names there are is known to the family alone:
            all others select, mix and join rows.

    Example:
        >>> prompts = Conditioning({"embedding": torch.ones(2, 77, 8)})
        >>> nothing = Conditioning({"embedding": torch.zeros(1, 77, 8)})
        >>> mixed = prompts.where(torch.tensor([True, False]), nothing)
        >>> len(mixed), mixed["embedding"].amax((1, 2))
        (2, tensor([1., 0.]))
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a name."""
        return self.tensors[name]

    def rows(self, rows: Tensor | slice) -> Conditioning:
        """Some of the prompts."""
        return Conditioning({name: tensor[rows] for name, tensor in self.tensors.items()})

    def where(self, mask: Tensor, other: Conditioning) -> Conditioning:
        """Own rows where ``mask`` (bool ``[N]``) is true, else those of ``other`` (N rows or 1)."""
        return Conditioning(
            {
                name: torch.where(mask.view(-1, *[1] * (tensor.ndim - 1)), tensor, other[name])
                for name, tensor in self.tensors.items()
            }
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditioning:
        """The same on another device or in another precision."""
        return Conditioning({n: t.to(device, dtype or t.dtype) for n, t in self.tensors.items()})

    @classmethod
    def join(cls, *parts: Conditioning) -> Conditioning:
        """Several behind each other."""
        names = parts[0].tensors
        return cls({name: torch.cat([part[name] for part in parts]) for name in names})

    def to_tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Named tensors for a file, each name behind ``prefix``."""
        return {f"{prefix}{name}": tensor for name, tensor in self.tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> Conditioning:
        """Inverse of :meth:`to_tensors`: of all tensors those whose name begins with ``prefix``."""
        return cls({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
