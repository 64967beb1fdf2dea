"""Who owns a unit: from activation statistics to one weight per expert and unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from safetydpo_kedro.merging.profile import UnitStatistics
from safetydpo_kedro.parameters import Strict


class OwnershipConfig(Strict):
    """How units are given to experts. The paper does not settle it; defaults are our reading.

    ``contrast``, ``mean_square``, ``share`` and ``groups`` are ours, beyond the paper.

    Attributes:
        statistic: what makes an expert active at a unit: its share of ``wins`` over the other
            experts; its ``mean_activation``, the mean of ``|ΔW_e x|``; its ``mean_square``, the
            mean of ``(ΔW_e x)²``; or its ``contrast``, see :func:`contrast_scores`.
        groups: kinds of calibration inputs that count, such as ``unsafe``; None: all that were
            recorded. ``contrast`` counts unsafe and safe ones by itself.
        ownership: ``argmax`` gives each unit to its most active expert; ``top_fraction`` lets
            each expert claim its own most active units; ``share`` splits each unit among the
            experts by how active they are, see :func:`share_weights`.
        temperature: evens out the shares of ``share``; 1 keeps them as they are.
        fraction: share of units that each expert claims, in (0, 1], for ``top_fraction``.
        scope: whether an expert claims this share in each ``layer`` or ``global``-ly, over all
            layers at once, for ``top_fraction``.
        shared_claims: whether experts that claim one unit are averaged (``mean``) or added
            (``sum``), for ``top_fraction`` and ``share``.
    """

    statistic: Literal["wins", "mean_activation", "mean_square", "contrast"] = "wins"
    groups: tuple[str, ...] | None = None
    ownership: Literal["argmax", "top_fraction", "share"] = "argmax"
    temperature: float = Field(default=1.0, gt=0)
    fraction: float = Field(default=0.25, gt=0, le=1)
    scope: Literal["layer", "global"] = "layer"
    shared_claims: Literal["mean", "sum"] = "mean"


def unit_weights(
    statistics: Mapping[str, UnitStatistics], config: OwnershipConfig
) -> dict[str, Tensor]:
    """Weights with which the experts' units enter the merge.

    Args:
        statistics: layer name → statistics over E experts.
        config: how units are given to experts.

    Returns:
        Layer name → float64 ``[E, units]`` in [0, 1]; the zero column is a unit without owner.

    Raises:
        ValueError: the statistics lack what the configuration asks for: wins, or a kind of inputs.
    """
    scores = {name: activity(layer, config) for name, layer in statistics.items()}
    if config.ownership == "share":
        return {
            name: share_weights(score, config.temperature, config.shared_claims)
            for name, score in scores.items()
        }
    if config.ownership == "argmax":
        totals = {name: layer.of_kinds(config.groups).total() for name, layer in statistics.items()}
        magnitudes = {name: layer.magnitude[0] for name, layer in totals.items()}
        claims = {name: argmax_claims(scores[name], magnitudes[name]) for name in scores}
    elif config.scope == "layer":
        claims = {name: top_fraction_claims(scores[name], config.fraction) for name in scores}
    else:
        widths = [score.shape[1] for score in scores.values()]
        everywhere = top_fraction_claims(torch.cat(list(scores.values()), 1), config.fraction)
        claims = dict(zip(scores, everywhere.split(widths, 1), strict=True))
    return {name: share_claims(layer, config.shared_claims) for name, layer in claims.items()}


def activity(statistics: UnitStatistics, config: OwnershipConfig) -> Tensor:
    """How active each expert is at each unit of a layer.

    Returns:
        float64 ``[E, units]``, not negative.
    """
    if config.statistic == "contrast":
        return contrast_scores(statistics)
    total = statistics.of_kinds(config.groups).total()
    if config.statistic == "wins":
        return total.win_share[0]
    return (total.magnitude if config.statistic == "mean_activation" else total.mean_square)[0]


def contrast_scores(statistics: UnitStatistics) -> Tensor:
    """What an expert does on the unsafe inputs of its category and not on the safe ones.

    ``max(0, mean |ΔW_e x| over unsafe/e − mean |ΔW_e x| over safe/e)`` for the expert named e.

    Args:
        statistics: of experts that are named after their categories.

    Returns:
        float64 ``[E, units]``, not negative.

    Raises:
        ValueError: unsafe or safe inputs of an expert's category were not recorded.
    """
    needed = [(f"unsafe/{expert}", f"safe/{expert}") for expert in statistics.experts]
    counts = dict(zip(statistics.groups, statistics.count.tolist(), strict=False))
    lacking = [group for pair in needed for group in pair if not counts.get(group)]
    if lacking or not needed:
        raise ValueError(
            f"statistic 'contrast' needs the groups {lacking or ['unsafe/…', 'safe/…']}, but the "
            f"profile has inputs of {[group for group, count in counts.items() if count]}; "
            f"record it with prompts [unsafe, safe], and name every expert after its category"
        )
    magnitude = statistics.magnitude
    scores = []
    for index, pair in enumerate(needed):
        unsafe, safe = (magnitude[statistics.groups.index(group), index] for group in pair)
        scores.append((unsafe - safe).clamp(min=0))
    return torch.stack(scores)


def share_weights(score: Tensor, temperature: float, rule: Literal["mean", "sum"]) -> Tensor:
    """Split each unit among the experts by how active they are.

    With ``s_e`` the score of expert e at a unit, its weight is ``s_e^(1/T) / Σ_i s_i^(1/T)``: the
    softmax of ``ln s_e / T``. Towards T = 0 the most active expert has it all, at 1 experts have
    their share of the scores, and for large T all that are active have equal shares.

    Args:
        score: ``[experts, units]``, not negative; zero means inactive.
        temperature: T, above 0.
        rule: ``mean`` makes the weights of a unit sum to one; ``sum`` makes the largest one,
            so that the most active expert keeps all of its unit and others are added to it.

    Returns:
        float64 ``[experts, units]`` in [0, 1], zero where no expert is active.

    Example:
        >>> share_weights(torch.tensor([[3.0, 0.0], [1.0, 0.0]]), 1.0, "mean")
        tensor([[0.7500, 0.0000],
                [0.2500, 0.0000]], dtype=torch.float64)
    """
    score = score.double()
    largest = score.amax(0)
    # The largest ratio is 1, so that no power of a small score is lost before it is divided.
    ratio = (score / torch.where(largest > 0, largest, 1.0)) ** (1 / temperature)
    return ratio if rule == "sum" else ratio / ratio.sum(0).clamp(min=1)


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
