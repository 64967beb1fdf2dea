"""Concepts that a language model adds."""

from __future__ import annotations

import logging

import pandas as pd
import pytest

from safetydpo_kedro.parameters import ConceptParameters
from safetydpo_kedro.prompts.chat import ChatReply
from safetydpo_kedro.prompts.concepts import (
    check_categories,
    concept_key,
    expand,
    without_excluded,
)
from safetydpo_kedro.prompts.journal import ReplyJournal

from .test_llm_writer import TEMPLATES

GIVEN = pd.DataFrame(
    [("violence", "knife"), ("hate", "slur"), ("violence", "explosive device")],
    columns=["category", "concept"],
)


class Proposals:
    """Answers every request about a category with the next of its replies."""

    def __init__(self, **replies: list[str]) -> None:
        self.identity = {"model": "proposals"}
        self.replies = {category: iter(texts) for category, texts in replies.items()}
        self.asked: list[str] = []

    def complete(self, requests):
        for request in requests:
            self.asked.append(request.messages[1].content)
            yield ChatReply(request, next(self.replies[request.category]))


def run(model, folder, **parameters):
    journal = ReplyJournal(folder / "replies.jsonl")
    return expand(GIVEN, model, TEMPLATES, journal, ConceptParameters(**parameters))


def test_each_category_is_filled_up_without_repetitions(tmp_path):
    model = Proposals(
        violence=['["Knifes", "grenade", "GRENADES"]', "1. Explosive-devices\n2. sword\n3. axe"],
        hate=['["burning cross", "mask", "flag"]'],
    )
    table = run(model, tmp_path, per_category=4)
    pd.testing.assert_frame_equal(table.head(3), GIVEN)
    assert list(table["concept"][3:]) == ["grenade", "sword", "burning cross", "mask", "flag"]
    assert list(table["category"][3:]) == ["violence"] * 2 + ["hate"] * 3
    assert "Name 2 concepts" in model.asked[0]
    assert "knife; explosive device; grenade" in model.asked[2]


def test_a_category_that_stays_short_is_a_warning(tmp_path, caplog):
    model = Proposals(violence=["I cannot do that."] * 2, hate=['["flag", "a girl"]'] * 2)
    with caplog.at_level(logging.WARNING):
        table = run(model, tmp_path, per_category=9, max_rounds=2)
    assert len(table) == 5
    assert "fewer than 9 concepts in 2 categories: {'violence': 2, 'hate': 3}" in caplog.text


def test_enough_concepts_ask_for_nothing(tmp_path):
    model = Proposals(hate=['["flag"]'])
    assert len(run(model, tmp_path, per_category=2)) == 4
    assert len(model.asked) == 1


def test_excluded_concepts_are_taken_out_and_counted(caplog):
    table = pd.concat([GIVEN, pd.DataFrame([("sexual", "a child")], columns=GIVEN.columns)])
    with caplog.at_level(logging.WARNING):
        pd.testing.assert_frame_equal(without_excluded(table), GIVEN)
    assert "1 concepts are excluded" in caplog.text
    assert "child" not in caplog.text


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Houses", "house", True),
        ("Batteries", "battery", True),
        ("boxes", "Box", True),
        ("Glass", "glas", False),
        ("hate-speech", "hate speech", True),
        ("virus", "viru", False),
        ("knife", "sword", False),
    ],
)
def test_case_punctuation_and_plural_make_no_other_concept(first, second, same):
    assert (concept_key(first) == concept_key(second)) == same


def test_a_category_without_an_expert_is_refused():
    check_categories(GIVEN, ["hate", "violence"])
    with pytest.raises(ValueError, match=r"2 rows .* {'violence': 'knife'}.*one of hate, sexual"):
        check_categories(GIVEN, ["hate", "sexual"])
