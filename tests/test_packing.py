from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.packing import pack, unpack

plain_values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
)
tensors = st.lists(st.integers(-9, 9), max_size=3).map(torch.tensor)
texts = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
keys = texts.map(lambda text: f"k{text}") | st.integers() | st.just("$tensor") | st.just("$tuple")
states = st.recursive(
    plain_values | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=10,
)


def assert_same(left, right):
    """Equal in values, types and order of keys; tensors bit for bit."""
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key, value in left.items():
            assert_same(value, right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for pair in zip(left, right, strict=True):
            assert_same(*pair)
    else:
        assert left == right


@given(states)
def test_what_is_packed_into_json_and_tensors_comes_back_as_it_was(state):
    taken = {}
    text = json.dumps(pack({"state": state}, taken))
    assert_same(unpack(json.loads(text), taken), {"state": state})


def test_tensors_are_named_by_their_paths():
    taken = {}
    form = pack({"optimizer": {0: {"exp_avg": torch.ones(2), "step": 3}}, "all": []}, taken)
    assert list(taken) == ["optimizer/0/exp_avg"]
    assert form == {
        "optimizer": {
            "$items": [[0, {"exp_avg": {"$tensor": "optimizer/0/exp_avg"}, "step": 3}]],
        },
        "all": [],
    }


def test_two_tensors_of_one_path_are_an_error():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="path 'a/b/c'"):
        pack({"a/b": {"c": one}, "a": {"b/c": one}}, {})


def test_a_missing_tensor_is_an_error():
    with pytest.raises(KeyError, match="a"):
        unpack(pack({"a": torch.ones(1)}, {}), {})
