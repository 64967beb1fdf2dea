"""Rows of several tensors are those of the joined one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.stacked import StackedRows


@given(st.data(), st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_any_rows_are_those_of_the_joined_tensor(data, sizes):
    parts = [torch.randn(size, 2, 3) for size in sizes]
    joined, stacked = torch.cat(parts), StackedRows(parts)
    assert len(stacked) == len(joined) and stacked.shape == joined.shape
    count = len(joined)
    positions = st.lists(st.integers(0, count - 1), max_size=6) if count else st.just([])
    index = torch.tensor(data.draw(positions), dtype=torch.int64)
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    part = slice(*sorted(data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))))
    for rows in (index, mask.bool(), part):
        assert torch.equal(stacked[rows], joined[rows])


def test_parts_that_are_not_alike_are_refused():
    with pytest.raises(ValueError, match="one shape and dtype"):
        StackedRows([torch.zeros(1, 2), torch.zeros(1, 3)])
    with pytest.raises(ValueError, match="one shape and dtype"):
        StackedRows([])
