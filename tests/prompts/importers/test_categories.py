from __future__ import annotations

import pytest

from benchmarks.released_files import SPELLINGS
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.settings import CATEGORIES
from tests.prompts.importers.files import KNOWN


def test_every_published_spelling_is_known():
    assert {KNOWN.find(spelling) for spelling in SPELLINGS} == set(CATEGORIES)
    i2p = "hate, harassment, violence, self-harm, sexual, shocking, illegal activity"
    assert KNOWN.find_all(i2p) == list(CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("change", [str.upper, str.title, lambda c: f" {c.replace('_', ' - ')} "])
def test_case_spaces_and_punctuation_do_not_matter(category, change):
    assert KNOWN.find(change(category)) == category


def test_what_is_not_known_is_none_and_nothing_is_no_category():
    assert KNOWN.find("weather") is KNOWN.find("") is None
    assert KNOWN.find_all("violence, weather") == ["violence", None]
    assert KNOWN.find_all(" , ") == []


def test_an_alias_of_an_unknown_category_is_an_error():
    with pytest.raises(ValueError, match=r"category_aliases.*\['weather'\]"):
        Categories(CATEGORIES, {"rain": "weather"})
