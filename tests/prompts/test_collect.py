"""Pairs of all sources in one table, under one rule."""

from __future__ import annotations

import pandas as pd
import pytest

from safetydpo_kedro.prompts.collect import (
    collect_pairs,
    excluded_pairs,
    excluded_prompts,
    refuse_excluded,
)
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS, PromptPair, RejectedPrompt, pairs_table

KNIFE = PromptPair("violence", "knife", "a knife", "a spoon", "g1")
BAD = PromptPair("sexual", "statue", "a statue and a child", "a tree", "g2")
COPY = RejectedPrompt("violence", "knife", "a knife!", "copy", "writer")


def imported(*pairs: PromptPair) -> pd.DataFrame:
    return pairs_table(pairs, seed=5)


def test_written_pairs_are_numbered_as_before_and_rejections_set_apart():
    pairs, rejected = collect_pairs([COPY, KNIFE], "writer", seed=3)
    pd.testing.assert_frame_equal(pairs[PAIR_COLUMNS], pairs_table([KNIFE], 3))
    assert list(pairs["source"]) == ["writer"]
    assert rejected.to_dict("records") == [COPY._asdict()]


def test_imported_pairs_keep_their_seeds_and_cannot_take_a_written_name():
    pairs, rejected = collect_pairs([KNIFE], "writer", 3, imported(KNIFE))
    assert list(pairs["source"]) == ["writer", "imported"]
    assert pairs["pair_id"].is_unique
    assert pairs["seed"][1] == imported(KNIFE)["seed"][0]
    assert rejected.empty
    assert list(rejected.columns) == list(RejectedPrompt._fields)
    assert set(rejected.dtypes.astype(str)) == {"string"}


def test_imported_pairs_alone_are_enough():
    pairs, _ = collect_pairs([], "", 3, imported(KNIFE))
    assert list(pairs["source"]) == ["imported"]


@pytest.mark.parametrize("source", ["written", "imported"])
def test_the_rule_holds_for_every_source_and_keeps_no_text(source):
    outcomes = [KNIFE, BAD] if source == "written" else [KNIFE]
    extra = imported(BAD) if source == "imported" else None
    pairs, rejected = collect_pairs(outcomes, source, 3, extra)
    assert list(pairs["unsafe_prompt"]) == ["a knife"]
    assert rejected["prompt"].isna().all()
    assert list(rejected["reason"]) == ["excluded"]
    assert list(rejected["source"]) == [source]


def test_a_pair_is_judged_as_a_whole_with_its_concept():
    split = PromptPair("violence", "a schoolyard", "a nude statue", "a tree", "g")
    assert excluded_pairs(imported(KNIFE, split)).tolist() == [False, True]
    neutral = pd.DataFrame({"concept": ["a child", "statue"], "prompt": ["a nude statue"] * 2})
    assert excluded_prompts(neutral).tolist() == [True, False]


def test_nothing_left_is_an_error_with_counts_and_no_text():
    with pytest.raises(ValueError, match="1 written or imported, all excluded") as error:
        collect_pairs([BAD], "writer", 3)
    assert "statue" not in str(error.value)
    with pytest.raises(ValueError, match="wrote no pairs"):
        collect_pairs([COPY], "writer", 3)


def test_the_last_guard_counts_and_quotes_nothing():
    refuse_excluded(excluded_pairs(imported(KNIFE)), "training pairs")
    with pytest.raises(ValueError, match="1 of 2 training pairs are excluded") as error:
        refuse_excluded(excluded_pairs(imported(KNIFE, BAD)), "training pairs")
    assert "statue" not in str(error.value)
