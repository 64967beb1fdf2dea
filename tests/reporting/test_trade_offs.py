"""Tables and figures of the ablations, worked by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from safetydpo_kedro.reporting.trade_offs import (
    counts_figure,
    over_seeds,
    summarise_trials,
    trade_off_figure,
    transfer_figure,
    transfer_matrix,
)

NAN = float("nan")


def image(seed, benchmark, flagged, concept=1.0, mate=NAN, own=True, arm="sum", strength=1.0):
    return {
        "sweep": "strategies",
        "experts": "standard",
        "arm": arm,
        "merged": 1,
        "strength": strength,
        "seed_name": seed,
        "own": own,
        "benchmark": benchmark,
        "inappropriate": flagged,
        "concept_correct": concept,
        "drawn_as_mate": mate,
    }


SCORES = pd.DataFrame(
    [
        image("a", "unsafe", True, mate=0.0),
        image("a", "unsafe", False, mate=1.0),
        image("a", "unsafe", True, concept=0.0, own=False),
        image("a", "safe", False, concept=0.0),
        image("a", "safe", False, own=False),
        image("a", "neutral", False),
        image("b", "unsafe", False, mate=1.0),
        image("b", "safe", False),
        image("b", "neutral", False, concept=0.0),
        image("b", "neutral", False),
    ]
)


def test_a_trial_in_figures():
    table = summarise_trials(SCORES).set_index("seed_name")
    first, second = table.loc["a"], table.loc["b"]
    assert first[["ip", "mate", "safe", "neutral", "others"]].tolist() == [0.5, 0.5, 0.5, 1, 0]
    assert second[["ip", "mate", "safe", "neutral"]].tolist() == [0, 1, 1, 0.5]
    assert pd.isna(second["others"])  # every category was merged


def test_seeds_have_a_mean_and_a_spread():
    (row,) = over_seeds(summarise_trials(SCORES)).to_dict("records")
    assert (row["seeds"], row["ip"], row["neutral"], row["others"]) == (2, 0.25, 0.75, 0)
    assert row["ip_sd"] == pytest.approx(0.5 / 2**0.5)
    assert pd.isna(row["others_sd"])


def test_a_curve_runs_over_strength_at_its_lower_quality():
    stronger = SCORES.assign(strength=2.0, inappropriate=False)
    table = over_seeds(summarise_trials(pd.concat([stronger, SCORES])))
    (curve,) = trade_off_figure(table, "all").data
    assert list(curve.text) == ["× 1", "× 2"]
    assert list(curve.y) == [0.25, 0]
    assert list(curve.x) == [0.75, 0.75]
    assert list(curve.error_y.array) == pytest.approx([0.5 / 2**0.5, 0])


def test_trade_off_curves_run_along_the_strength():
    table = pd.DataFrame(
        {
            "arm": ["linear", "linear", "co_merge"],
            "experts": ["standard", "standard", "plain"],
            "strength": [2.0, 1.0, 1.0],
            "ip": [0.2, 0.6, 0.3],
            "ip_sd": float("nan"),
            "safe": [0.7, 0.95, 0.95],
            "neutral": [0.8, 0.9, 0.97],
        }
    )
    linear, co_merge = trade_off_figure(table, "all").data
    assert (linear.name, co_merge.name) == ("linear", "co_merge, plain experts")
    assert list(linear.x) == [0.9, 0.7]
    assert list(linear.customdata) == [1.0, 2.0]
    assert list(linear.error_y.array) == [0, 0]


def test_the_matrix_is_read_by_expert():
    rows = [
        {"arm": arm, "category": category, "inappropriate": flagged, "seed_name": seed}
        for seed in "ab"
        for arm, category, flagged in (
            ("hate", "hate", False),
            ("hate", "sexual", True),
            ("sexual", "hate", seed == "a"),
            ("sexual", "sexual", False),
        )
    ]
    scores = pd.DataFrame(rows).assign(sweep="transfer", benchmark="unsafe")
    matrix = transfer_matrix(scores, ["sexual", "hate"])
    assert matrix.to_numpy().tolist() == [[0, 0.5], [1, 0]]
    (heat,) = transfer_figure(matrix).data
    assert (list(heat.x), list(heat.y)) == (["sexual", "hate"], ["sexual", "hate"])


def test_counts_have_two_curves_an_arm():
    table = over_seeds(summarise_trials(SCORES))
    assert [curve.name for curve in counts_figure(table).data] == [
        "sum: IP",
        "sum: neutral concepts kept",
    ]


def test_without_a_checker_there_is_ip_alone():
    table = summarise_trials(SCORES.drop(columns=["concept_correct", "drawn_as_mate"]))
    assert table["ip"].notna().all() and table[["mate", "safe", "neutral"]].isna().all(axis=None)
