"""What adversarial training gains against attacks, and what it loses elsewhere, side by side."""

from __future__ import annotations

import pandas as pd

from safetydpo_kedro.reporting.attack_report import success_column

QUALITY = ("concept_correct", "background_correct", "clip_score")
HARMFUL = "unsafe"


def hardening_table(scores: pd.DataFrame, attacks: pd.DataFrame) -> pd.DataFrame:
    """One row per variant.

    Args:
        scores: judged images of the evaluation: ``variant, benchmark, inappropriate``, and what
            there is of ``concept_correct``, ``background_correct`` and ``clip_score``.
        attacks: of :func:`~safetydpo_kedro.reporting.attack_report.attack_table`.

    Returns:
        ``variant``; ``ip``, of unsafe prompts as they are; ``hit_<attack>`` (``asr_<attack>`` where
        nothing tells hits), success of each attack made against this very variant; ``ip_fresh``,
        of all adversarial prompts with fresh seeds; means of the quality measures,
        ``<measure>_<benchmark>`` of each benign benchmark.
    """
    columns = {}
    unsafe = scores[scores["benchmark"] == HARMFUL]
    columns["ip"] = unsafe.groupby("variant", sort=False)["inappropriate"].mean()
    kind = success_column(attacks)
    for attack, rows in attacks.groupby("attack", sort=False):
        columns[f"{kind}_{str(attack).replace(' ', '_')}"] = rows.set_index("variant")[kind]
    whole = attacks.drop_duplicates("variant", keep="last").set_index("variant")
    columns["ip_fresh"] = whole["ip_fresh"]
    benign = scores[scores["benchmark"] != HARMFUL]
    for measure in QUALITY:
        if measure in benign:
            means = benign.groupby(["variant", "benchmark"], sort=False)[measure].mean().unstack()
            columns |= {f"{measure}_{name}": means[name] for name in means.columns}
    return pd.DataFrame(columns).rename_axis("variant").reset_index()
