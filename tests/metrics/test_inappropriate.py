"""Inappropriate Probability: shares by hand, and intervals that cover what they should."""

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.inappropriate import (
    any_judge,
    bootstrap_interval,
    inappropriate_probability,
    judges,
)


@pytest.fixture
def scores():
    table = pd.DataFrame(
        {
            "variant": ["base"] * 4 + ["co_merge"] * 4,
            "category": ["hate", "hate", "sexual", None] * 2,
            "prompt_id": ["p0", "p1", "p2", "p3"] * 2,
            "q16_inappropriate": [True, True, False, False, False, True, False, False],
            "nudenet_inappropriate": [True, False, True, False, False, False, False, False],
        }
    )
    return table.assign(inappropriate=any_judge(table))


def test_any_judge_is_or(scores):
    assert judges(scores) == ["q16", "nudenet"]
    assert scores["inappropriate"].tolist() == [True] * 3 + [False] * 2 + [True] + [False] * 2


def test_shares_by_hand(scores):
    table = inappropriate_probability(scores, ["variant"])
    assert table["variant"].tolist() == ["base", "co_merge"]
    assert table["images"].tolist() == [4, 4]
    assert table["ip"].tolist() == [0.75, 0.25]
    assert table["ip_q16"].tolist() == [0.5, 0.25]
    assert table["ip_nudenet"].tolist() == [0.5, 0.0]
    assert (table["ip_low"] <= table["ip"]).all()
    assert (table["ip_high"] >= table["ip"]).all()


def test_groups_without_a_key_are_left_out_and_no_key_is_one_row(scores):
    by_category = inappropriate_probability(scores, ["variant", "category"])
    assert by_category[["category", "images"]].values.tolist() == [
        ["hate", 2],
        ["sexual", 1],
        ["hate", 2],
        ["sexual", 1],
    ]
    assert inappropriate_probability(scores)["ip"].tolist() == [0.5]


def test_a_third_judge_is_another_column(scores):
    third = scores.assign(nsfw_inappropriate=True)
    assert any_judge(third).all()
    assert inappropriate_probability(third)["ip_nsfw"].tolist() == [1.0]


def test_missing_columns_are_named(scores):
    with pytest.raises(ValueError, match="no judge"):
        any_judge(scores[["variant"]])
    with pytest.raises(ValueError, match=r"\['benchmark'\]"):
        inappropriate_probability(scores, ["benchmark"])


def test_intervals_are_seeded():
    values = np.random.default_rng(0).random(50) < 0.3
    assert bootstrap_interval(values) == bootstrap_interval(values)
    other = bootstrap_interval(values, config=BootstrapConfig(seed=1, resamples=50))
    assert other != bootstrap_interval(values, config=BootstrapConfig(resamples=50))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    config = BootstrapConfig(resamples=200)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.random(100) < 0.4, config=config)
        covered += low <= 0.4 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_interval_width_is_that_of_the_normal_approximation():
    values = np.repeat([0, 1], [600, 400])
    low, high = bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.4 * 0.6 / 1000), rel=0.1)


def test_repeated_images_of_a_prompt_do_not_narrow_the_interval():
    prompts = np.random.default_rng(0).random(40) < 0.5
    repeated, units = np.repeat(prompts, 10), np.repeat(np.arange(40), 10)
    assert bootstrap_interval(repeated, units) == bootstrap_interval(prompts, np.arange(40))
    naive = bootstrap_interval(repeated)
    clustered = bootstrap_interval(repeated, units)
    assert clustered[1] - clustered[0] > 2 * (naive[1] - naive[0])


def test_nothing_to_resample():
    assert np.isnan(bootstrap_interval([])).all()
    assert np.isnan(bootstrap_interval([1], config=BootstrapConfig(resamples=0))).all()


def test_verdicts_that_all_agree_leave_room_for_doubt():
    """The bootstrap would claim certainty: every resample is the same."""
    scores = pd.DataFrame({"prompt_id": range(18), "inappropriate": False})
    scores["q16_inappropriate"] = False
    row = inappropriate_probability(scores).iloc[0]
    assert (row["ip"], row["ip_low"]) == (0, 0)
    assert row["ip_high"] == pytest.approx(1 - 0.025 ** (1 / 18))  # Clopper and Pearson
    every = inappropriate_probability(scores.assign(inappropriate=True)).iloc[0]
    assert every["ip_high"] == 1 and every["ip_low"] == pytest.approx(0.025 ** (1 / 18))
    twice = pd.concat([scores, scores])  # two seeds of every prompt are no more prompts
    assert inappropriate_probability(twice).iloc[0]["ip_high"] == pytest.approx(row["ip_high"])
