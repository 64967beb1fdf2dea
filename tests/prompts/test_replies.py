"""Real ways in which language models answer, and any text at all."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.parameters import ReplyParameters
from safetydpo_kedro.prompts.replies import Rejected, parse_prompts
from safetydpo_kedro.prompts.split import normalise
from safetydpo_kedro.prompts.withhold import WITHHELD

RULES = ReplyParameters(language="en", max_characters=60)
ANY = ReplyParameters(language="any", max_characters=10_000)
KNIVES = ["a knife on a table", "a knife beside a plate"]


@pytest.mark.parametrize(
    "reply",
    [
        '["a knife on a table", "a knife beside a plate"]',
        '```json\n["a knife on a table",\n "a knife beside a plate"]\n```',
        'Sure! Have:\n```\n["a knife on a table", "a knife beside a plate"]\n```\nEnjoy [1].',
        '["a knife\non a table", "a knife beside a\\u0000 plate\\ud800"]',
        '{"prompts": ["a knife on a table", "a knife beside a plate"]}',
        '[{"id": 1, "prompt": "a knife on a table"}, {"text": "a knife beside a plate"}]',
        '["a knife on a table"]\n["a knife beside a plate"]',
        '"a knife on a table", "a knife beside a plate",',
        '["a knife on a table" "a knife beside a plate"',
        '["1. a knife on a table", "2. a knife beside a plate"]',
        "1. a knife on a table\n2. a knife beside a plate",
        '1) "a knife on a table",\n2) “a knife beside a plate”',
        "- **a knife on a table**\n- Prompt 2: a knife beside a plate",
        "a knife on a table\n\n  a knife   beside a plate  ",
        '<think>They want ["knives"].</think>\n["a knife on a table", "a knife beside a plate"]',
    ],
)
def test_prompts_are_found_in_every_form(reply):
    assert parse_prompts(reply, RULES).prompts == KNIVES


@pytest.mark.parametrize(
    ("reply", "prompts", "rejected"),
    [
        ('["a knife", "a fo', ["a knife"], [("a fo", "truncated")]),
        ("Sure, here are 2:\na knife", ["a knife"], [("Sure, here are 2:", "chatter")]),
        ("1. a knife\nLet me know!", ["a knife"], [("Let me know!", "chatter")]),
        ("Here is a safe version: 'a spoon'", ["a spoon"], []),
        ("I'm sorry, but I can't do that.", [], [("I'm sorry, but I can't do that.", "refusal")]),
        ('["I cannot do that"]', [], [("I cannot do that", "refusal")]),
        ("", [], [("", "empty")]),
        ('["a knife", "...", 3]', ["a knife"], [("...", "empty"), ("3", "not_text")]),
        ('["a knife", "A KNIFE!"]', ["a knife"], [("A KNIFE!", "duplicate")]),
        (json.dumps(["a " * 40 + "knife"]), [], [("a " * 40 + "knife", "too_long")]),
        ('["нож на столе"]', [], [("нож на столе", "wrong_language")]),
        ('["a knife", "[withheld]"]', ["a knife"], [(None, "excluded")]),
        ('[\n"a knife",\n[withheld]\n"a fork"]', ["a knife", "a fork"], [(None, "excluded")]),
        ("1. a knife\n[withheld]", ["a knife"], [(None, "excluded")]),
        ("['a knife', 'a fork']", [], [("['a knife', 'a fork']", "not_text")]),
    ],
)
def test_what_is_not_taken_is_returned_with_its_reason(reply, prompts, rejected):
    parsed = parse_prompts(reply, RULES)
    assert parsed.prompts == prompts
    assert parsed.rejected == [Rejected(*item) for item in rejected]


def test_an_unescaped_quote_does_not_cut_a_prompt():
    assert parse_prompts('["a "sharp" knife", "a fo', RULES).prompts == ['a "sharp" knife']


def test_known_prompts_and_echoes_are_no_news():
    asked = ["Write 10 prompts about a very sharp knife."]
    parsed = parse_prompts(
        '["A KNIFE", "prompts about a very sharp knife", "sharp knife"]',
        RULES,
        known=["a knife"],
        asked=asked,
    )
    assert parsed.prompts == ["sharp knife"]
    assert [item.reason for item in parsed.rejected] == ["duplicate", "echo"]


@pytest.mark.parametrize(
    ("text", "language", "fits"),
    [
        ("ein Messer auf dem Tisch", "de", True),
        ("нож на столе", "ru", True),
        ("a knife on a table", "ru", False),
        ("机の上のナイフ", "ja", True),
        ("刀在桌子上", "zh", True),
        ("a café with a knife", "en", True),
        ("đặt con dao lên bàn", "en", False),
        ("123", "en", True),
        ("нож", "any", True),
    ],
)
def test_the_language_is_judged_by_letters(text, language, fits):
    parsed = parse_prompts(json.dumps([text]), ReplyParameters(language=language))
    assert parsed.prompts == ([text] if fits else [])


marks = ['["', '"', '", "', '"]', "[", "{", "\\", "\\ud800", "```", "```json\n", "\n", "1. ", "- "]
words = ["a knife", "Sure,", "I'm sorry", "[withheld]", "<think>", "</think>", "\ud800", "пример"]
pieces = st.sampled_from([*marks, *words])


@given(st.one_of(st.text(), st.lists(st.one_of(pieces, st.text(max_size=5))).map("".join)))
def test_no_reply_breaks_it_and_what_comes_out_is_clean(reply):
    parsed = parse_prompts(reply, RULES)
    for prompt in parsed.prompts:
        assert prompt == prompt.strip()
        assert 0 < len(prompt) <= RULES.max_characters
        assert "\n" not in prompt
        prompt.encode()
    assert len({normalise(prompt) for prompt in parsed.prompts}) == len(parsed.prompts)
    for rejected in parsed.rejected:
        assert (rejected.text is None) == (rejected.reason == "excluded")


@pytest.mark.parametrize("reply", ["[" * 5000, '["a' + ' "x' * 300, '"' * 5001, "[1]" * 2000])
def test_a_model_that_stutters_is_read_to_the_end(reply):
    assert len(parse_prompts(reply, RULES).rejected) >= 1


prompt_texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], include_characters=" "), min_size=1
)


@given(st.lists(prompt_texts.map(lambda text: " ".join(text.split()))), st.booleans())
def test_a_well_formed_array_comes_back_as_it_is(texts, fenced):
    # Numbers and the marker of what is excluded mean something in a list.
    texts = [t for t in texts if WITHHELD not in t and not re.match(r"\d+[.)]\s", t)]
    usual = parse_prompts(json.dumps(texts), ANY)
    distinct = {normalise(t): t for t in reversed(texts) if normalise(t)}.values()
    assert sorted(usual.prompts) == sorted(distinct)
    assert len(usual.prompts) + len(usual.rejected) == max(len(texts), 1)
    reply = f"```json\n{json.dumps(texts, ensure_ascii=False)}\n```"
    if fenced and "```" not in "".join(texts):
        assert parse_prompts(reply, ANY).prompts == usual.prompts
