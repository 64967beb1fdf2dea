"""Profiles in parts: shards of calibration inputs that add up, and experts that come later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.merging.calibration import Calibration
from safetydpo_kedro.merging.profile import (
    HEADER,
    NOT_COUNTED,
    ActivationProfile,
    UnitStatistics,
)


def to_shard(profile: ActivationProfile) -> dict[str, Tensor]:
    """A profile of some inputs as one row of named tensors, with its header among them."""
    tensors, metadata = profile.to_tensors()
    header = torch.frombuffer(bytearray(metadata[HEADER].encode()), dtype=torch.uint8)
    return {name: tensor[None] for name, tensor in {HEADER: header, **tensors}.items()}


def from_shards(shards: Mapping[str, Tensor]) -> ActivationProfile:
    """The profile of all inputs: the sum of its shards.

    Args:
        shards: name → rows of :func:`to_shard`, one for each shard; they may be
            :class:`~safetydpo_kedro.stacked.StackedRows`, of which one row is read at a time.

    Raises:
        ValueError: the shards are of different experts, groups or calibration inputs.
    """
    headers = {bytes(_row(shards[HEADER], i).tolist()) for i in range(len(shards[HEADER]))}
    if len(headers) != 1:
        found = sorted(header.decode() for header in headers)
        raise ValueError(
            f"shards of different activation profiles do not add up: {found}; remove them all and "
            f"record them again"
        )
    sums = {}
    for name, rows in shards.items():
        if name == HEADER:
            continue
        total = _row(rows, 0).clone()
        for i in range(1, len(rows)):
            total += _row(rows, i)
        sums[name] = total
    return ActivationProfile.from_tensors(sums, {HEADER: headers.pop().decode()})


def extend_profile(
    profile: ActivationProfile,
    model: DiffusionModel,
    new: Mapping[str, LoraAdapter],
    calibration: Calibration,
) -> ActivationProfile:
    """Add experts to a profile without those that are in it: only the new ones are recorded.

    Mean activations and mean squares are what recording all experts at once gives, because those
    of one expert do not depend on the others. Wins do, at every position: the result has none,
    and a merge that asks for them is refused. Record all experts at once to have them.

    Args:
        profile: of the existing experts.
        model: the base model.
        new: name of a new expert → adapter.
        calibration: the inputs that the profile was recorded on.

    Raises:
        ValueError: a new expert's name is taken, or the profile was recorded on other inputs.
    """
    taken = sorted(set(new) & set(profile.experts))
    if taken:
        raise ValueError(
            f"experts {taken} are in the profile already: give new experts other names, or record "
            f"all experts at once to replace them"
        )
    if profile.calibration != calibration.digest:
        raise ValueError(
            "the profile was recorded on other calibration inputs (settings, pairs or neutral "
            "images): take those of the profile, or record all experts at once"
        )
    added = calibration.record(model, new)
    names = sorted((*profile.experts, *added.experts))
    digests = dict(zip(profile.experts, profile.digests, strict=True))
    digests |= dict(zip(added.experts, added.digests, strict=True))
    return replace(
        profile,
        experts=tuple(names),
        output=_side_by_side(profile.output, added.output, names),
        inner=_side_by_side(profile.inner, added.inner, names),
        digests=tuple(digests[name] for name in names),
    )


def _side_by_side(
    old: Mapping[str, UnitStatistics], new: Mapping[str, UnitStatistics], experts: list[str]
) -> dict[str, UnitStatistics]:
    """Statistics of both, layer by layer; an expert without a layer was not active there."""
    joined = {}
    for name in sorted({*old, *new}):
        sides = [side[name] for side in (old, new) if name in side]
        units = max(side.wins.shape[2] for side in sides)
        joined[name] = UnitStatistics.zeros(sides[0].groups, experts, units)
        joined[name].wins.fill_(NOT_COUNTED)
        joined[name].count.copy_(sides[0].count)
        for side in sides:
            rows = [experts.index(expert) for expert in side.experts]
            width = side.wins.shape[2]  # ranks may differ
            joined[name].absolute_sum[:, rows, :width] = side.absolute_sum
            joined[name].square_sum[:, rows, :width] = side.square_sum
    return joined


def _row(rows: Tensor, index: int) -> Tensor:
    """One row of a tensor, or of rows that are read when asked for."""
    return rows[index : index + 1][0]
