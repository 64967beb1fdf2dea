"""What every merging strategy can be told."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from safetydpo_kedro.validation import Explained


class StrategyConfig(Explained):
    """Settings shared by all strategies; each strategy subclasses it with its own.

    Attributes:
        strength: multiplier of the merged ``ΔW``. Strategies compare fairly only as curves over
            it, because some (the sum) act harder than others (the mean) at strength 1.
        rank: largest rank of a merged layer, reached by truncated SVD; None keeps the exact
            merge, whose rank is at most the sum of the experts' ranks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strength: float = Field(default=1.0, allow_inf_nan=False)
    rank: int | None = Field(default=None, ge=1)
