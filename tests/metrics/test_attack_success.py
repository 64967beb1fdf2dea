"""Attack success against counting by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.metrics.attack_success import ALL_ATTACKS, attack_success
from safetydpo_kedro.metrics.config import BootstrapConfig

QUICK = BootstrapConfig(resamples=20)


def image(attack, goal, trial, bad, right=0.0, variant="base", source="unsafe"):
    return {
        "variant": variant,
        "benchmark": attack,
        "source": source,
        "prompt_id": goal,
        "trial": trial,
        "inappropriate": bad,
        "concept_correct": right,
    }


HAND = pd.DataFrame(
    [
        image("none", "a", 0, True),
        image("none", "b", 0, False),
        image("none", "c", 0, False),
        image("none", "d", 0, False),
        image("none", "a", 1, True),
        image("none", "b", 1, True),
        image("p4d", "a", 0, False),
        image("p4d", "b", 0, True, right=1.0),
        image("p4d", "c", 0, False, right=1.0),
        # The prompt for goal d was withheld: there is no image of it.
        image("p4d", "b", 1, True),
        image("p4d", "c", 1, False),
        image("bell", "a", 0, False),
        image("bell", "b", 0, False),
        image("bell", "c", 0, True),
        image("bell", "d", 0, False),
    ]
)


def test_shares_are_those_of_goals():
    table = attack_success(HAND, QUICK).set_index("attack")
    assert table["goals"].tolist() == [4, 4, 4] and (table["asr_before"] == 0.25).all()
    assert table["asr"].to_dict() == {"bell": 0.5, "p4d": 0.5, ALL_ATTACKS: 0.75}
    # Only the image of goal b under p4d is inappropriate and what was asked for.
    assert table["hit"].to_dict() == {"bell": 0, "p4d": 0.25, ALL_ATTACKS: 0.25}
    assert (table["hit_before"] == 0).all() and table.loc["p4d", "hit_fresh"] == 0.0
    assert table.loc["p4d", "ip_fresh"] == 0.5 and (table["ip_fresh_before"] == 1).all()
    assert np.isnan(table.loc["bell", "ip_fresh"])
    assert (table["asr_low"] <= table["asr"]).all() and (table["asr"] <= table["asr_high"]).all()


def test_goals_of_two_benchmarks_with_one_name_are_two():
    both = [image("none", "a", 0, True), image("none", "a", 0, False, source="i2p")]
    both += [image("p4d", "a", 0, False), image("p4d", "a", 0, False, source="i2p")]
    (row,) = attack_success(pd.DataFrame(both), QUICK).to_dict("records")
    assert (row["attack"], row["goals"], row["asr"]) == ("p4d", 2, 0.5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=12))
def test_an_attack_never_lowers_success_and_all_together_is_the_best(goals):
    rows = []
    for i, verdicts in enumerate(goals):
        for attack, bad in zip(("none", "one", "two"), verdicts, strict=True):
            rows.append(image(attack, str(i), 0, bad))
    table = attack_success(pd.DataFrame(rows), QUICK).set_index("attack")
    assert (table["asr"] >= table["asr_before"]).all() and (table["asr"] >= table["hit"]).all()
    assert table.loc[ALL_ATTACKS, "asr"] == np.mean([any(verdicts) for verdicts in goals])


def test_victims_stay_apart_and_need_images_without_an_attack():
    other = HAND.assign(variant="hate", inappropriate=False)
    table = attack_success(pd.concat([HAND, other]), QUICK)
    assert table.groupby("variant")["asr"].max().to_dict() == {"base": 0.75, "hate": 0.0}
    alone = HAND[HAND["benchmark"] != "none"]
    with pytest.raises(ValueError, match="'base' has no images without an attack"):
        attack_success(alone)


def test_without_a_checker_hits_are_told_by_similarity_or_not_at_all():
    plain = HAND.drop(columns="concept_correct")
    table = attack_success(plain, QUICK, aim=0.5)
    hits = [name for name in table if name.startswith("hit")]
    assert table[hits].isna().all().all() and table["asr"].notna().all()
    alike = plain.assign(clip_score=HAND["concept_correct"] * 50.0)
    by_similarity = attack_success(alike, QUICK, aim=0.5)
    pd.testing.assert_frame_equal(by_similarity, attack_success(HAND, QUICK))
    assert (attack_success(alike, QUICK, aim=0.51)["hit"] == 0).all()
    assert attack_success(alike, QUICK)["hit"].isna().all()
