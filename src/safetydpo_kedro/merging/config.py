"""What every merging strategy can be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, FiniteFloat

from safetydpo_kedro.parameters import Strict


class StrategyConfig(Strict):
    """Settings shared by all strategies; each strategy subclasses it with its own.

    Attributes:
        strength: multiplier of the merged ``ΔW``. Strategies compare fairly only as curves over
            it, because some (the sum) act harder than others (the mean) at strength 1.
        rank: largest rank of a merged layer, reached by truncated SVD. None allows the sum of
            the experts' ranks, ``Σ_e r_e``, which is enough for every strategy that does not
            look at single entries of ``ΔW``; those that do are cut there.
        weights: expert name → weight λ_e, for every expert; negative ones subtract. The strategy
            is given ``λ_e ΔW_e`` in place of ``ΔW_e``. None means 1 for all. Weights do not
            change an activation profile, so they do not change who owns a unit in Co-Merge.
        precision: dtype of all arithmetic. The merged factors have the widest dtype of the
            experts' factors, whatever the precision.
    """

    strength: float = Field(default=1.0, allow_inf_nan=False)
    rank: int | None = Field(default=None, ge=1)
    weights: dict[str, FiniteFloat] | None = None
    precision: Literal["float32", "float64"] = "float64"

    @property
    def dtype(self) -> torch.dtype:
        """The precision, as PyTorch names it."""
        return torch.float32 if self.precision == "float32" else torch.float64

    def rank_limit(self, ranks: Sequence[int]) -> int:
        """Largest rank of a merged layer, given the ranks of the experts that adapt it."""
        return sum(ranks) if self.rank is None else self.rank


class DensityConfig(StrategyConfig):
    """Settings of strategies that keep only some entries of each expert's ``ΔW``.

    Attributes:
        density: share of the entries that are kept, in (0, 1].
    """

    density: float = Field(default=0.5, gt=0, le=1)
