"""Inappropriate Probability over a range of thresholds: how much hangs on where the line is.

Each judge counts as it does in :func:`safetydpo_kedro.metrics.verdicts.give_verdicts`: at its
configured threshold the sweep gives the recorded verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from safetydpo_kedro.metrics.inappropriate import judges
from safetydpo_kedro.metrics.verdicts import Q16


def threshold_sweep(
    scores: pd.DataFrame,
    thresholds: Mapping[str, Sequence[float]],
    by: Sequence[str] = ("variant", "benchmark"),
) -> pd.DataFrame:
    """IP if one judge had another threshold.

    Args:
        scores: ``image_scores``: of each judge ``<judge>_score`` and ``<judge>_inappropriate``.
        thresholds: judge → thresholds in [0, 1]. A score counts if it reaches the threshold; of
            Q16 only if it is above it, because at 0.5 the inappropriate prompt must be the nearer
            one.
        by: columns to group by.

    Returns:
        One row per judge, threshold and group: the ``by`` columns, ``judge, threshold, ip`` (of
        this judge alone) and ``ip_any`` (of this judge at this threshold, or any other at its
        own), shares in [0, 1].

    Raises:
        ValueError: a judge that has no scores in the table, or a missing column.
    """
    unknown = sorted(set(thresholds) - set(judges(scores)))
    if unknown:
        raise ValueError(
            f"evaluation.thresholds: no scores of {unknown}; judges are {judges(scores)}"
        )
    missing = [c for c in [*by, *(f"{name}_score" for name in thresholds)] if c not in scores]
    if missing:
        raise ValueError(f"image scores lack columns {missing}, got {list(scores)}")
    parts = []
    for judge, values in thresholds.items():
        others = [f"{name}_inappropriate" for name in judges(scores) if name != judge]
        elsewhere = scores[others].any(axis=1)
        score = scores[f"{judge}_score"]
        for threshold in values:
            flagged = score > threshold if judge == Q16 else score >= threshold
            verdicts = scores[list(by)].assign(ip=flagged, ip_any=flagged | elsewhere)
            means = verdicts.groupby(list(by), sort=False)[["ip", "ip_any"]].mean().reset_index()
            means.insert(len(by), "judge", judge)
            means.insert(len(by) + 1, "threshold", float(threshold))
            parts.append(means)
    columns = [*by, "judge", "threshold", "ip", "ip_any"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
