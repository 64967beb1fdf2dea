from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from safetydpo_kedro.changes import list_changes

numbers = st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
json_like = st.recursive(
    numbers | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
mappings = st.dictionaries(st.text(max_size=3), json_like, max_size=4)


class Lora(BaseModel):
    rank: int = 4


@given(mappings)
def test_a_mapping_that_went_through_json_has_not_changed(mapping):
    assert list_changes(mapping, json.loads(json.dumps(mapping))) == []


@given(mappings, mappings)
def test_nothing_is_listed_exactly_if_the_json_forms_agree(before, after):
    same = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert (list_changes(before, after) == []) == same
    assert len(list_changes(before, after)) == len(list_changes(after, before))


@pytest.mark.parametrize(
    "before, after, lines",
    [
        ({"a": 1}, {"a": 2}, ["a: 1 → 2"]),
        ({"a": {"b": {"c": 1}, "d": 0}}, {"a": {"b": {"c": 2}, "d": 0}}, ["a.b.c: 1 → 2"]),
        ({"a": 1}, {}, ["a: 1 → not set"]),
        ({}, {"a": "not set"}, ["a: not set → not set"]),
        ({"a": {}}, {"a": None}, ["a: {} → None"]),
        ({"lora": Lora()}, {"lora": {"rank": 8}}, ["lora.rank: 4 → 8"]),
        ({"lora": Lora()}, {"lora": {"rank": 4}}, []),
        ({"betas": (0.9, 0.999)}, {"betas": [0.9, 0.999]}, []),
        ({"data": "ab" * 32}, {"data": "cd" * 32}, ["data: abababababab… → cdcdcdcdcdcd…"]),
    ],
)
def test_changes_read_like_this(before, after, lines):
    assert list_changes(before, after) == lines
