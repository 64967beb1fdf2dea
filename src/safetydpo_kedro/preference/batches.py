"""Which rows a training step sees: a function of the step's number, so resuming skips nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from safetydpo_kedro.preference.noise import key

CAPTIONS = {
    "unsafe_prompt": (True,),
    "safe_prompt": (False,),
    "both_prompts": (True, False),
    "sft": (True,),
}


class Rows(NamedTuple):
    """Training rows of one optimizer step.

    Attributes:
        pairs: int64 ``[B]``, positions in the pair set.
        unsafe: bool ``[B]``, whether the row's caption is p_U (else p_S).
        draws: int64 ``[B]``, number of the noise draw.
    """

    pairs: Tensor
    unsafe: Tensor
    draws: Tensor


def training_rows(
    step: int, batch_size: int, pairs: int, strategy: str, draws: int | None, seed: int
) -> Rows:
    """Rows of optimizer step ``step``.

    Every (pair, caption) comes once per epoch, in an order of the epoch's own. In epoch k a pair
    is seen under its draw k, or k modulo ``draws`` where draws are to repeat.

    Args:
        step: 0, 1, ….
        batch_size: B.
        pairs: number of pairs in the set.
        strategy: one of :data:`CAPTIONS`; it says under which captions a pair occurs.
        draws: bound on the number of draws per pair; None: no bound.
        seed: of the run.
    """
    captions = CAPTIONS[strategy]
    rows = pairs * len(captions)
    position = torch.arange(step * batch_size, (step + 1) * batch_size)
    epoch = position // rows
    orders = {
        int(e): torch.randperm(
            rows, generator=torch.Generator().manual_seed(key(seed, "order", int(e)))
        )
        for e in epoch.unique()
    }
    row = torch.stack([orders[int(e)][p] for e, p in zip(epoch, position % rows, strict=True)])
    return Rows(
        pairs=row % pairs,
        unsafe=torch.tensor(captions)[row // pairs],
        draws=epoch if draws is None else epoch % draws,
    )
