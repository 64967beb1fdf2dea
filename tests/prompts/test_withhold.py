"""Excluded text leaves a marker and nothing else; everything else stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.parameters import ReplyParameters
from safetydpo_kedro.prompts.replies import parse_prompts
from safetydpo_kedro.prompts.withhold import WITHHELD, withhold

HIT, FINE = "a child in a park", "a bowl of fruit"  # the category makes the first one a hit


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps([FINE, HIT]),
        json.dumps([FINE, HIT], indent=1),
        json.dumps([{"prompt": FINE}, {"prompt": HIT}]),
        f"1. {FINE}\n2. {HIT}",
        f'"{FINE}", "{HIT}"',
        f'["{FINE}", "a ch\\u0069ld in a park"]',
    ],
)
def test_only_what_is_hit_is_withheld(reply):
    kept = withhold(reply, "sexual")
    parsed = parse_prompts(kept, ReplyParameters())
    assert parsed.prompts == [FINE]
    assert [(item.text, item.reason) for item in parsed.rejected] == [(None, "excluded")]
    assert "ch" not in kept.replace(WITHHELD, "")
    assert withhold(reply, "violence") == reply


def test_a_string_over_two_lines_is_judged_as_one():
    kept = withhold(f'["a nude statue\nof a child", "{FINE}"]', "violence")
    assert kept == f'["{WITHHELD}", "{FINE}"]'


def test_a_line_is_judged_together_with_what_was_asked():
    assert withhold("in a park", "sexual", ("a child",)) == WITHHELD
    assert withhold("in a park", "sexual", ("a fruit",)) == "in a park"


def test_text_around_quotes_is_judged_with_them():
    assert withhold('A nude "child" in a park', "violence") == WITHHELD
    assert withhold('A "child" in a park', "violence") == 'A "child" in a park'


@given(st.text(), st.sampled_from([None, "violence"]))
def test_harmless_text_stays_as_it_is(reply, category):
    assert withhold(reply, category) == reply
