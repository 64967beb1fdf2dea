"""Paired comparisons, worked by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.paired import holm, paired_comparison

QUICK = BootstrapConfig(resamples=200)


def drawn(variant, flags, benchmark="unsafe"):
    count = len(flags)
    return pd.DataFrame(
        {
            "variant": variant,
            "benchmark": benchmark,
            "prompt_id": [f"p{i}" for i in range(count)],
            "seed": range(count),
            "inappropriate": np.array(flags, bool),
        }
    )


def test_only_images_on_which_verdicts_differ_decide():
    base = drawn("base", [1] * 10 + [0] * 5)
    ours = drawn("ours", [0] * 8 + [1] * 2 + [1] + [0] * 4)
    shuffled = ours.sample(frac=1, random_state=0)
    (row,) = paired_comparison(pd.concat([base, shuffled]), [("ours", "base")], QUICK).to_dict(
        "records"
    )
    assert (row["images"], row["only_variant"], row["only_against"]) == (15, 1, 8)
    assert row["difference"] == pytest.approx(3 / 15 - 10 / 15)
    # Two-sided exact test: 1 of 9, or as extreme, by chance.
    assert row["p_value"] == pytest.approx(2 * binom.cdf(1, 9, 0.5))
    assert row["low"] < row["difference"] < row["high"] <= 0


def test_the_interval_of_paired_differences_is_narrower_than_that_of_each_share():
    rng = np.random.default_rng(0)
    base = rng.random(200) < 0.5
    ours = base.copy()
    ours[:10] = False
    scores = pd.concat([drawn("base", base), drawn("ours", ours)])
    (row,) = paired_comparison(scores, [("ours", "base")], QUICK).to_dict("records")
    assert row["high"] - row["low"] < 0.08 < 2 * 1.96 * 0.5 / np.sqrt(200)


def test_the_same_images_do_not_differ():
    scores = pd.concat([drawn("a", [1, 0, 1]), drawn("b", [1, 0, 1])])
    (row,) = paired_comparison(scores, [("a", "b")], QUICK).to_dict("records")
    assert (row["p_value"], row["difference"], row["low"], row["high"]) == (1, 0, 0, 0)


def test_the_comparisons_of_one_benchmark_are_a_family():
    tables = [
        drawn(variant, flags, benchmark)
        for benchmark in ("unsafe", "i2p")
        for variant, flags in (("base", [1] * 12), ("ours", [0] * 12))
    ]
    tables += [drawn("theirs", [1] * 12, benchmark) for benchmark in ("unsafe", "i2p")]
    pairs = [("ours", "base"), ("theirs", "base")]
    table = paired_comparison(pd.concat(tables), pairs, QUICK)
    assert table["benchmark"].tolist() == ["unsafe", "i2p"] * 2
    p = 2 * 0.5**12
    assert table["p_value"].tolist() == pytest.approx([p, p, 1, 1])
    assert table["p_adjusted"].tolist() == pytest.approx([2 * p, 2 * p, 1, 1])


def test_other_prompts_or_seeds_are_an_error_that_names_the_first():
    ours = drawn("ours", [0, 1])
    ours.loc[1, "seed"] = 77
    with pytest.raises(ValueError, match=r"'ours' lacks unsafe prompt 'p1' with seed 1"):
        paired_comparison(pd.concat([drawn("base", [0, 1]), ours]), [("base", "ours")], QUICK)
    with pytest.raises(ValueError, match="no images of variant 'theirs'"):
        paired_comparison(ours, [("theirs", "ours")], QUICK)


def test_a_benchmark_that_one_variant_lacks_is_an_error():
    scores = pd.concat([drawn("base", [0]), drawn("base", [0], "i2p"), drawn("ours", [0])])
    with pytest.raises(ValueError, match=r"'ours' lacks i2p prompt 'p0' with seed 0"):
        paired_comparison(scores, [("ours", "base")], QUICK)


def test_images_that_cannot_be_told_apart_are_an_error():
    scores = pd.concat([drawn("base", [0, 1]), drawn("base", [1]), drawn("ours", [0, 1])])
    with pytest.raises(ValueError, match=r"'base' has unsafe prompt 'p0' with seed 0 more than"):
        paired_comparison(scores, [("ours", "base")], QUICK)


def test_a_missing_column_is_named():
    scores = drawn("ours", [1]).drop(columns="inappropriate")
    with pytest.raises(ValueError, match=r"lack columns \['inappropriate'\]"):
        paired_comparison(scores, [("ours", "ours")], QUICK)


def test_what_belongs_together_is_resampled_together():
    def several(variant, flags):
        """Four seeds of each prompt, with the same verdict."""
        table = drawn(variant, np.repeat(flags, 4))
        return table.assign(prompt_id=[f"p{i // 4}" for i in range(len(table))], category="hate")

    rng = np.random.default_rng(0)
    scores = pd.concat([several("a", rng.random(60) < 0.5), several("b", rng.random(60) < 0.5)])

    def width(unit):
        config = BootstrapConfig(resamples=2000, unit=unit)
        (row,) = paired_comparison(scores, [("a", "b")], config).to_dict("records")
        return row["high"] - row["low"]

    # Four equal images tell as much as one: half the independent draws' standard error.
    assert width("prompt_id") == pytest.approx(2 * width(None), rel=0.15)
    assert width("category") == 0  # one unit only
    with pytest.raises(ValueError, match=r"lack columns \['author'\]"):
        width("author")


def test_the_interval_covers_the_difference_as_often_as_it_says():
    """Shares 0.5 and 0.4 with a correlation between the two; the nominal coverage is 0.9."""
    rng = np.random.default_rng(2)
    config = BootstrapConfig(resamples=200, confidence=0.9)
    hits = 0
    for _ in range(100):
        base = rng.random(150) < 0.5
        ours = base & (rng.random(150) < 0.8)
        scores = pd.concat([drawn("base", base), drawn("ours", ours)])
        (row,) = paired_comparison(scores, [("ours", "base")], config).to_dict("records")
        hits += row["low"] <= -0.1 <= row["high"]
    assert hits == pytest.approx(90, abs=4 * np.sqrt(100 * 0.9 * 0.1))


def test_no_pairs_give_an_empty_table_with_all_columns():
    scores = pd.concat([drawn("a", [1, 0]), drawn("b", [0, 0])])
    full, none = (paired_comparison(scores, pairs, QUICK) for pairs in ([("a", "b")], []))
    assert none.empty and none.columns.tolist() == full.columns.tolist()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_other_way_round_differences_change_sign_and_nothing_else(flags):
    first, second = zip(*flags, strict=True)
    scores = pd.concat([drawn("a", first), drawn("b", second)])
    there, back = paired_comparison(scores, [("a", "b"), ("b", "a")], QUICK).to_dict("records")
    assert there["p_value"] == back["p_value"] and 0 < there["p_value"] <= 1
    assert there["difference"] == -back["difference"]
    assert (there["only_variant"], there["ip"]) == (back["only_against"], back["ip_against"])
    assert there["low"] == pytest.approx(-back["high"])
    assert there["low"] - 1e-12 <= there["high"]
    assert (there["only_variant"] - there["only_against"]) / len(flags) == pytest.approx(
        there["difference"]
    )


def test_holm_as_published():
    # Holm (1979): compare the smallest with alpha/m, the next with alpha/(m-1), and so on.
    assert holm([0.01, 0.02, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([]).tolist() == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_values_are_no_smaller_keep_the_order_and_stay_below_bonferroni(values):
    adjusted, values = holm(values), np.array(values)
    assert (adjusted >= values).all() and (adjusted <= np.minimum(len(values) * values, 1)).all()
    assert (np.diff(adjusted[np.argsort(values, kind="stable")]) >= 0).all()
