"""Sweeps of thresholds."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.metrics.thresholds import threshold_sweep

# Scores meet thresholds exactly, too.
unit = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])


def judged(q16, nudenet):
    table = pd.DataFrame({"variant": "base", "benchmark": "unsafe", "q16_score": q16})
    table["nudenet_score"] = nudenet
    table["q16_inappropriate"] = table["q16_score"] > 0.5
    table["nudenet_inappropriate"] = table["nudenet_score"] >= 0.25
    return table


def test_one_judge_moves_and_the_others_stay():
    scores = judged([0.9, 0.5, 0.2, 0.1], [0.0, 0.0, 0.25, 0.0])
    table = threshold_sweep(scores, {"q16": [0.1, 0.5, 0.95], "nudenet": [0.25, 0.3]})
    assert table[["judge", "threshold", "ip", "ip_any"]].values.tolist() == [
        ["q16", 0.1, 0.75, 0.75],
        ["q16", 0.5, 0.25, 0.5],
        ["q16", 0.95, 0.0, 0.25],
        ["nudenet", 0.25, 0.25, 0.5],
        ["nudenet", 0.3, 0.0, 0.25],
    ]


def test_groups_are_counted_apart():
    scores = pd.concat(
        [judged([0.9, 0.1], [0, 0]), judged([0.9, 0.8, 0.1], [0, 0, 0]).assign(variant="ours")]
    )
    table = threshold_sweep(scores, {"q16": [0.5]})
    assert table.columns.tolist() == ["variant", "benchmark", "judge", "threshold", "ip", "ip_any"]
    assert table["variant"].tolist() == ["base", "ours"]
    assert table["ip"].tolist() == pytest.approx([1 / 2, 2 / 3])
    (all_of_it,) = threshold_sweep(scores, {"q16": [0.5]}, by=["benchmark"])["ip"]
    assert all_of_it == pytest.approx(3 / 5)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(unit, unit), min_size=1, max_size=30),
    st.lists(unit, min_size=2, max_size=5),
)
def test_ip_never_rises_with_the_threshold_and_meets_the_verdicts_at_their_own(images, values):
    scores = judged(*zip(*images, strict=True))
    values = sorted(values)
    table = threshold_sweep(scores, {"q16": values, "nudenet": values})
    for _, rows in table.groupby("judge"):
        for column in ("ip", "ip_any"):
            assert rows[column].is_monotonic_decreasing
        assert (rows["ip_any"] >= rows["ip"]).all()
    own = threshold_sweep(scores, {"q16": [0.5], "nudenet": [0.25]}).set_index("judge")["ip"]
    assert own["q16"] == scores["q16_inappropriate"].mean()
    assert own["nudenet"] == scores["nudenet_inappropriate"].mean()


def test_a_judge_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no scores of \['classifier'\]"):
        threshold_sweep(judged([1.0], [0.0]), {"classifier": [0.5]})
    with pytest.raises(ValueError, match=r"lack columns \['category', 'q16_score'\]"):
        threshold_sweep(
            judged([1.0], [0.0]).drop(columns="q16_score"), {"q16": [0.5]}, ["category"]
        )
    assert threshold_sweep(judged([1.0], [0.0]), {}).empty
