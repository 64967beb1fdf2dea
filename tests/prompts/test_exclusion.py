from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.pictograms.captions import all_captions
from safetydpo_kedro.pictograms.grammar import GrammarWriter, concept_table, neutral_prompt_table
from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.exclusion_terms import (
    MINOR_SIGNS,
    MINOR_STEMS,
    MINOR_WORDS,
    SEXUAL_SIGNS,
    SEXUAL_STEMS,
    SEXUAL_WORDS,
)
from safetydpo_kedro.settings import CATEGORIES

AGES = [
    *("17 year old", "17-year-old", "17yo", "17 y/o", "5 yrs old", "6 months old", "3 y.o."),
    *("seventeen-year-old", "twelve years old", "aged 12", "aged between 9 and 12", "age of 9"),
    *("age: 12", "under 18", "under the age of eighteen", "who just turned sixteen"),
    *("she is only 15", "in the 5th grade", "in seventh grade", "a sixteen years young model"),
]
MINOR_TERMS = [*MINOR_WORDS, *MINOR_STEMS, *MINOR_SIGNS]
SEXUAL_TERMS = [*SEXUAL_WORDS, *SEXUAL_STEMS, *SEXUAL_SIGNS]
MINORS = [*AGES, *(f"a {word}" for word in MINOR_TERMS), "teenagers", "schoolchildren"]
SEXUAL = [f"{word} picture" for word in SEXUAL_TERMS]
LEET = str.maketrans({"a": "@", "e": "3", "i": "1", "o": "0", "s": "$", "t": "7", "l": "1"})
SOME_MINORS = st.sampled_from(MINORS)
SOME_SEXUAL = st.sampled_from(SEXUAL)
ADDED = st.text(max_size=30)


@pytest.mark.parametrize("minor", MINORS)
def test_a_minor_and_sexual_content_are_excluded_whatever_the_words(minor):
    assert is_excluded(minor, category="sexual")
    for word in SEXUAL:
        assert is_excluded(f"{minor}, {word}")
        assert is_excluded(word, f"{minor} on a chair")


@pytest.mark.parametrize(
    ("minor", "adult", "sexual"),
    [
        ("ein 16 Jahre altes Mädchen", "eine Frau auf einem Stuhl", "Nacktheit"),
        ("una niña de 12 años", "una mujer en una silla", "desnudos"),
        ("une fille de 15 ans", "une femme sur une chaise", "scène érotique"),
        ("un bambino", "una donna su una sedia", "contenuto sessuale"),
        ("uma criança", "uma mulher em uma cadeira", "fotos nuas"),
        ("ένα παιδί", "μια γυναίκα σε μια καρέκλα", "γυμνό"),
        ("девочка 10 лет", "женщина на стуле, голова", "эротика"),
        ("一个女孩", "椅子上的一位女性，理性的", "裸体"),
        ("ベンチの少女", "イエローの椅子の女性", "ヌード"),
        ("의자에 앉은 소녀", "의자에 앉은 여성", "누드"),
    ],
)
def test_the_rule_reads_the_languages_in_which_prompts_are_written(minor, adult, sexual):
    assert is_excluded(minor, category="sexual") and is_excluded(minor, sexual)
    assert not is_excluded(adult, sexual, category="sexual")
    assert not is_excluded(minor, category="violence")


@pytest.mark.parametrize("category", ["sexual", "Sexual", " SEXUAL ", "sexual, shocking", "nudity"])
def test_the_category_counts_in_any_spelling(category):
    assert is_excluded("a girl on a chair", category=category)


@pytest.mark.parametrize(
    "text",
    [
        *("a woman in a swimsuit", "two adults", "a 25 year old man", "a twenty-five-year-old man"),
        *("a couple married for 17 years", "a 2,000-year-old temple", "three women with 12 roses"),
        *("a canteen", "a woman, 18 years old", "a woman aged 40", "in 1912 a man", "nineteen men"),
        *("a 35-year-old's girlfriend", "", "   ", "skidding cars", "an annoyed man"),
        *("an intimidating gaming chair", "a nuanced voice", "meningitis", "a kind person"),
    ],
)
def test_adults_alone_are_not_excluded(text):
    assert not is_excluded(text, category="sexual")


@pytest.mark.parametrize("category", [c for c in CATEGORIES if c != "sexual"])
def test_neither_minors_nor_sexual_content_alone_are_excluded(category):
    only_minors = ["a kid with a knife", "a 12 year old with a ball", "a school"]
    assert not any(is_excluded(text, category=category) for text in only_minors)
    assert not is_excluded("a sensual nude", "lingerie", category=category)


def _spaced(text: str, filler: str) -> str:
    return filler.join(text.replace(" ", ""))


DISGUISES = [
    str.upper,
    str.title,
    lambda text: text.translate(LEET),
    lambda text: _spaced(text, " "),
    lambda text: _spaced(text, "."),
    lambda text: "\u200b".join(text),
    lambda text: "".join(f"{letter}\u0301" for letter in text),
    lambda text: text.translate({ord(c): ord(c) + 0xFEE0 for c in "abcdefghijklmnopqrstuvwxyz"}),
    lambda text: text.replace("a", "а").replace("o", "о").replace("e", "е"),  # Cyrillic
    lambda text: text.replace(" ", "  \t\n"),
    lambda text: text.replace(" ", " - "),
    lambda text: text.replace(" ", "_"),
    lambda text: f"«{text}»!?",
]


@pytest.mark.parametrize(("first", "second"), product(range(len(DISGUISES)), repeat=2))
def test_disguises_do_not_help(first, second):
    for minor in ("girl", "17 year old", "preteen", "school uniform", "an infant"):
        assert is_excluded(DISGUISES[first](minor), DISGUISES[second]("erotic art"))
        if not minor[0].isdigit():  # spelled out, a digit may be a letter or an age
            assert is_excluded(DISGUISES[second](DISGUISES[first](minor)), category="sexual")


@given(SOME_MINORS, SOME_SEXUAL, ADDED, ADDED, st.randoms(use_true_random=False))
def test_added_text_never_makes_it_acceptable(minor, sexual, text, other, random):
    texts = [f"{minor} {other}", f"{sexual} {text}", other]
    random.shuffle(texts)
    assert is_excluded(*texts)
    assert is_excluded(f"{text}: {sexual} with a {minor} {other}")


FILLER = ["woman", "a", "19", "year", "old", "on", "chair", "schooner", "kidney", "sextant"]
PHRASES = st.lists(st.sampled_from([*MINORS, *SEXUAL, *FILLER]), max_size=4).map(" ".join)


@given(PHRASES, PHRASES, st.sampled_from([None, *CATEGORIES]))
def test_case_spacing_and_order_do_not_change_the_verdict(text, other, category):
    verdict = is_excluded(text, other, category=category)
    assert is_excluded(text.upper(), other.title(), category=category) == verdict
    assert is_excluded(other.replace(" ", " \n "), f" {text}.", category=category) == verdict


def test_the_pictogram_world_is_not_excluded():
    assert not any(map(is_excluded, all_captions()))
    assert not any(map(is_excluded, neutral_prompt_table()["prompt"]))
    concepts = list(concept_table().itertuples(index=False, name=None))
    pairs = list(GrammarWriter().write(concepts, 1000, seed=0))
    assert len(pairs) > 1000
    for pair in pairs:
        texts = pair.concept, pair.unsafe_prompt, pair.safe_prompt
        assert not is_excluded(*texts, category=pair.category)
