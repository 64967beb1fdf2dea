"""Which preserved images a step sees, and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.parameters import PreservationParameters
from safetydpo_kedro.preference.latents import PreservedImages
from safetydpo_kedro.preference.noise import Draws, key, keyed_draws


class PreservedRows(NamedTuple):
    """Preserved rows of one optimizer step.

    Attributes:
        pools: int64 ``[P]``, position of the row's pool in :attr:`PreservedPools.names`.
        items: int64 ``[P]``, any number; modulo the pool's size it is a position in the pool.
    """

    pools: Tensor
    items: Tensor


class PreservedPools:
    """Pools of harmless images, and how often each is drawn from.

    Args:
        pools: images by name; ``neutral`` gets what the others leave.
        parameters: shares of the pools.
        seed: of the choice.
    """

    def __init__(
        self, pools: Mapping[str, PreservedImages], parameters: PreservationParameters, seed: int
    ) -> None:
        shares = {"safe": parameters.safe_share, "other_unsafe": parameters.other_unsafe_share}
        shares = {name: share for name, share in shares.items() if name in pools}
        self.names = (*shares, "neutral")
        self.weights = torch.tensor(
            [*shares.values(), 1 - sum(shares.values())], dtype=torch.float32
        )
        self.pools = [pools[name] for name in self.names]
        self.parameters = parameters
        self.seed = seed

    def choose(self, step: int) -> PreservedRows:
        """The rows of optimizer step ``step``, by its number alone."""
        generator = torch.Generator().manual_seed(key(self.seed, "preserved", step))
        count = self.parameters.rows
        pools = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return PreservedRows(pools, torch.randint(1 << 40, (count,), generator=generator))

    def draw(
        self,
        rows: PreservedRows,
        step: int,
        noise_seed: int,
        train_timesteps: int,
        empty: Conditioning,
    ) -> tuple[Tensor, Conditioning, Draws]:
        """Latents ``[P, C, h, w]`` of some rows, their captions and their noise.

        Args:
            rows: P of them.
            step: the number of the draw.
            noise_seed: of noise and timesteps.
            train_timesteps: T.
            empty: one row, the caption where it is emptied.
        """
        chosen = [
            (
                self.pools[pool],
                slice(item % len(self.pools[pool]), item % len(self.pools[pool]) + 1),
            )
            for pool, item in zip(rows.pools.tolist(), rows.items.tolist(), strict=True)
        ]
        mean = torch.cat([pool.images.mean[row] for pool, row in chosen])
        std = torch.cat([pool.images.std[row] for pool, row in chosen])
        draws = keyed_draws(
            key(noise_seed, "preserved"),
            rows.items.tolist(),
            [step] * len(chosen),
            mean.shape[1:],
            train_timesteps,
        )
        text = Conditioning.join(*(pool.conditioning.rows(row) for pool, row in chosen))
        text = text.where(draws.uniform >= self.parameters.empty_share, empty)
        return mean + std * draws.posterior, text, draws
