"""Counter-based noise: (seed, item, draw) → noise and timestep, by a keyed generator.

Noise depends on nothing but its key. A resumed run draws the same, a batch can be split in any
way, and a draw that comes back meets the reference's error that was computed for it before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Integers = Sequence[int] | Tensor


class Draws(NamedTuple):
    """Randomness of B training rows.

    Attributes:
        posterior: standard normal ``[B, C, h, w]``, picks the latent from its posterior.
        noise: standard normal ``[B, C, h, w]``, the ε of the forward diffusion.
        timesteps: int64 ``[B]``, uniform in 0…T−1.
        uniform: float32 ``[B]`` in 0–1, decides on caption dropout.
    """

    posterior: Tensor
    noise: Tensor
    timesteps: Tensor
    uniform: Tensor


def key(*parts: int | str) -> int:
    """A 63-bit seed from the parts of a key; nearby keys give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def loser_noise(seed: int, items: Integers, draws: Integers, shape: Sequence[int]) -> Tensor:
    """A second ε of each (item, draw), for losers that do not share the winner's.

    It has a key of its own, so that whoever asks for it changes no other draw.

    Args:
        seed: of the run.
        items: B identities of pairs.
        draws: B numbers of draws.
        shape: ``[C, h, w]`` of a latent.

    Returns:
        Standard normal float32 ``[B, C, h, w]`` on the CPU.
    """
    rows = [
        torch.randn(
            *shape,
            generator=torch.Generator().manual_seed(key(seed, int(item), int(draw), "loser")),
        )
        for item, draw in zip(items, draws, strict=True)
    ]
    return torch.stack(rows)


def keyed_draws(
    seed: int,
    items: Integers,
    draws: Integers,
    shape: Sequence[int],
    train_timesteps: int,
) -> Draws:
    """Randomness of each (item, draw), float32 on the CPU.

    Args:
        seed: of the run.
        items: B identities of pairs (or preserved images).
        draws: B numbers of draws.
        shape: ``[C, h, w]`` of a latent.
        train_timesteps: T.
    """
    rows = []
    for item, draw in zip(items, draws, strict=True):
        generator = torch.Generator().manual_seed(key(seed, int(item), int(draw)))
        normal = torch.randn(2, *shape, generator=generator)
        timestep = torch.randint(train_timesteps, (), generator=generator)
        rows.append((normal[0], normal[1], timestep, torch.rand((), generator=generator)))
    return Draws(*(torch.stack(column) for column in zip(*rows, strict=True)))
