"""Operations on single entries of weight updates: trim, drop, elect a sign, average.

They look at entries, so a change of basis changes their result, and they need dense updates: of
one layer at a time, one float per entry and expert.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

Election = Literal["total", "frequency"]


def trim(delta: Tensor, density: float) -> Tensor:
    """Keep the largest entries by magnitude, set the others to zero.

    Args:
        delta: any shape, n entries.
        density: share that is kept, in (0, 1]: ``round(density · n)`` entries, and all that are
            as large as the smallest of these, so that the result does not depend on an order.

    Example:
        >>> trim(torch.tensor([3.0, -1.0, -4.0, 2.0]), 0.5)
        tensor([ 3.,  0., -4.,  0.])
    """
    magnitude = delta.abs()
    kept = round(density * delta.numel())
    if kept == 0:
        return torch.zeros_like(delta)
    threshold = magnitude.flatten().kthvalue(delta.numel() - kept + 1).values
    return torch.where(magnitude >= threshold, delta, 0)


def drop_and_rescale(delta: Tensor, density: float, seed: int) -> Tensor:
    """Keep each entry with probability ``density``; divide by it, so that the mean stays.

    DARE (Yu et al., 2024, "Language Models are Super Mario", equations 1 to 3), whose drop rate
    p is ``1 − density``.

    Args:
        delta: any shape.
        density: in (0, 1].
        seed: of the mask, which does not depend on device or dtype.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(delta.shape, generator=generator, dtype=torch.float64) < density
    return torch.where(kept.to(delta.device), delta / density, 0)


def add_up(deltas: Iterable[Tensor]) -> Tensor:
    """Sum of tensors of one shape, of which only one waits at a time; the first is overwritten."""
    return reduce(Tensor.add_, deltas)


def disjoint_mean(deltas: Sequence[Tensor], election: Election) -> Tensor:
    """Elect a sign for each entry; average the entries that have it (Yadav et al., 2023, TIES).

    ``γ = sgn(Σ_e τ_e)`` (``total``), or ``γ = sgn(Σ_e sgn(τ_e))`` (``frequency``), and the result
    is the mean of the ``τ_e`` with ``sgn(τ_e) = γ``. Where ``γ = 0``, nobody is elected and the
    result is 0; PEFT elects ``+`` there, which prefers one sign for no reason.

    Args:
        deltas: E tensors of one shape; zeros do not vote and are not counted.
        election: what is summed.

    Example:
        >>> a, b, c = torch.tensor([[3.0, 0.0], [-1.0, 4.0], [1.0, 2.0]])
        >>> disjoint_mean([a, b, c], "total")
        tensor([2., 3.])
    """
    signed = [delta.sign() for delta in deltas] if election == "frequency" else deltas
    elected = sum(signed[1:], start=signed[0]).sign()
    total, count = torch.zeros_like(elected), torch.zeros_like(elected)
    for delta in deltas:
        agrees = delta.sign() == elected
        total += torch.where(agrees, delta, 0)
        count += agrees
    return total / count.clamp(min=1)
