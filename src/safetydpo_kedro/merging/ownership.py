"""Who owns a unit: from activation statistics to one weight per expert and unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from safetydpo_kedro.merging.profile import UnitStatistics


class OwnershipConfig(BaseModel):
    """How units are given to experts. The paper does not settle it; defaults are our reading.

    Attributes:
        statistic: what makes an expert active at a unit: its share of ``wins`` over the other
            experts, or its ``mean_activation``, the mean of ``|ΔW_e x|``.
        ownership: ``argmax`` gives each unit to its most active expert; ``top_fraction`` lets
            each expert claim its own most active units.
        fraction: share of units that each expert claims, in (0, 1], for ``top_fraction``.
        scope: whether an expert claims this share in each ``layer`` or ``global``-ly, over all
            layers at once, for ``top_fraction``.
        shared_claims: whether experts that claim one unit are averaged (``mean``) or added
            (``sum``), for ``top_fraction``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    statistic: Literal["wins", "mean_activation"] = "wins"
    ownership: Literal["argmax", "top_fraction"] = "argmax"
    fraction: float = Field(default=0.25, gt=0, le=1)
    scope: Literal["layer", "global"] = "layer"
    shared_claims: Literal["mean", "sum"] = "mean"


def unit_weights(
    statistics: Mapping[str, UnitStatistics], config: OwnershipConfig
) -> dict[str, Tensor]:
    """Weights with which the experts' units enter the merge.

    Args:
        statistics: layer name → statistics over E experts, all groups of inputs counted.
        config: how units are given to experts.

    Returns:
        Layer name → float64 ``[E, units]`` in [0, 1]; the zero column is a unit without owner.
    """
    totals = {name: layer.total() for name, layer in statistics.items()}
    magnitudes = {name: layer.magnitude[0] for name, layer in totals.items()}
    scores = magnitudes
    if config.statistic == "wins":
        scores = {name: layer.win_share[0] for name, layer in totals.items()}
    if config.ownership == "argmax":
        claims = {name: argmax_claims(scores[name], magnitudes[name]) for name in scores}
    elif config.scope == "layer":
        claims = {name: top_fraction_claims(scores[name], config.fraction) for name in scores}
    else:
        widths = [score.shape[1] for score in scores.values()]
        everywhere = top_fraction_claims(torch.cat(list(scores.values()), 1), config.fraction)
        claims = dict(zip(scores, everywhere.split(widths, 1), strict=True))
    return {name: share_claims(layer, config.shared_claims) for name, layer in claims.items()}


def argmax_claims(score: Tensor, tie_break: Tensor) -> Tensor:
    """Give each unit to the expert with the largest score.

    Args:
        score: ``[experts, units]``, not negative; zero means inactive.
        tie_break: ``[experts, units]``, not negative; decides between equal scores, and where it
            is equal too, the first expert is taken.

    Returns:
        bool ``[experts, units]``, at most one True a column, none where no expert is active.

    Example:
        >>> score = torch.tensor([[3, 1, 0], [1, 1, 0]])
        >>> argmax_claims(score, tie_break=torch.tensor([[0.0, 0.1, 0.0], [0.0, 0.2, 0.0]]))
        tensor([[ True, False, False],
                [False,  True, False]])
    """
    leads = score == score.amax(0)
    owner = tie_break.masked_fill(~leads, -1).argmax(0)
    experts = torch.arange(len(score), device=score.device)
    return (experts[:, None] == owner) & (score > 0)


def top_fraction_claims(score: Tensor, fraction: float) -> Tensor:
    """Let each expert claim its own most active units.

    Args:
        score: ``[experts, units]``, not negative; zero means inactive.
        fraction: share of units each expert claims, in (0, 1]; rounded, but at least one unit.

    Returns:
        bool ``[experts, units]``; inactive units are never claimed.

    Example:
        >>> top_fraction_claims(torch.tensor([[4, 3, 0, 1], [0, 2, 0, 0]]), fraction=0.5)
        tensor([[ True,  True, False, False],
                [False,  True, False, False]])
    """
    keep = max(1, round(fraction * score.shape[1]))
    claims = torch.zeros_like(score, dtype=torch.bool)
    claims.scatter_(1, score.topk(keep, dim=1).indices, True)
    return claims & (score > 0)


def share_claims(claims: Tensor, rule: Literal["mean", "sum"]) -> Tensor:
    """Weights for units that several experts claim.

    Args:
        claims: bool ``[experts, units]``.
        rule: ``mean`` makes the weights of a claimed unit sum to one, ``sum`` leaves each at one.

    Returns:
        float64 ``[experts, units]``.

    Example:
        >>> share_claims(torch.tensor([[True, True], [True, False]]), "mean")
        tensor([[0.5000, 1.0000],
                [0.5000, 0.0000]], dtype=torch.float64)
    """
    weights = claims.double()
    return weights if rule == "sum" else weights / weights.sum(0).clamp(min=1)
