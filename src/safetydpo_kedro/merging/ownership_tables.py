"""What a profile says in short: who owns and wins how much of each layer, and how clearly."""

from __future__ import annotations

import pandas as pd
import torch

from safetydpo_kedro.merging.ownership import OwnershipConfig, unit_weights
from safetydpo_kedro.merging.profile import ActivationProfile


def ownership_shares(profile: ActivationProfile, config: OwnershipConfig) -> pd.DataFrame:
    """How much of each layer the experts own and win.

    Args:
        profile: statistics of all experts.
        config: how units are given to experts, and which inputs count.

    Returns:
        One row per layer and expert: ``layer, expert, units`` (of the layer), ``owned`` (share of
        them that is merged from the expert), ``wins`` (share of activations in which it is the
        strongest; NaN if not counted) and ``mean_activation`` (mean of ``|ΔW_e x|``).
    """
    weights = unit_weights(profile.output, config)
    rows = []
    for layer, statistics in profile.output.items():
        total = statistics.of_kinds(config.groups).total()
        missing = torch.full_like(total.magnitude, torch.nan)
        columns = {
            "owned": weights[layer].mean(1),
            "wins": (total.win_share if total.has_wins else missing)[0].mean(1),
            "mean_activation": total.magnitude[0].mean(1),
        }
        for i, expert in enumerate(profile.experts):
            values = {name: float(column[i]) for name, column in columns.items()}
            rows.append({"layer": layer, "expert": expert, "units": weights[layer].shape[1]})
            rows[-1] |= values
    return pd.DataFrame(rows)


def win_concentration(
    profile: ActivationProfile, config: OwnershipConfig, bins: int = 20
) -> pd.DataFrame:
    """How clearly units have a leading expert: its share of all wins there, as a histogram.

    A share of 1 means that one expert wins everywhere; one over the number of experts, that all
    win equally often, and that giving the unit to one of them is arbitrary.

    Args:
        profile: statistics of all experts.
        config: which inputs count.
        bins: of the histogram, over [0, 1].

    Returns:
        One row per expert and bin: ``expert, low, high, units``: units of all layers that the
        expert leads with a share of wins in ``[low, high)``, the last bin with its upper end. Of
        experts with equal wins the first one leads. Units without a win are left out.

    Raises:
        ValueError: the profile's wins were not counted.
    """
    counts = torch.zeros(len(profile.experts), bins, dtype=torch.int64)
    for statistics in profile.output.values():
        wins = statistics.of_kinds(config.groups).total().counted_wins[0]
        most, leader = wins.max(0)
        place = (most * bins // wins.sum(0).clamp(min=1)).clamp(max=bins - 1)
        seen = most > 0
        counts.index_put_((leader[seen], place[seen]), torch.tensor(1), accumulate=True)
    return pd.DataFrame(
        [
            {"expert": name, "low": i / bins, "high": (i + 1) / bins, "units": int(counts[e, i])}
            for e, name in enumerate(profile.experts)
            for i in range(bins)
        ]
    )
