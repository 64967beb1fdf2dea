"""Operations on entries, against PEFT's and against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from safetydpo_kedro.merging.entries import disjoint_mean, drop_and_rescale, trim


def random_deltas(seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, 5, 8, generator=generator, dtype=torch.float64))


@settings(deadline=None)
@given(seed=st.integers(0, 99), kept=st.integers(1, 40))
def test_trim_equals_pefts(seed, kept):
    (delta,) = random_deltas(seed, 1)
    density = (kept + 0.25) / 40  # clear of the rounding that differs: PEFT rounds down
    ours = trim(delta, min(density, 1))
    torch.testing.assert_close(ours, merge_utils.magnitude_based_pruning(delta, min(density, 1)))
    assert ours.count_nonzero() == kept


def test_trim_keeps_all_equals_and_can_keep_nothing():
    delta = torch.tensor([2.0, -2.0, 1.0, 2.0])
    assert trim(delta, 0.25).tolist() == [2, -2, 0, 2]
    assert trim(delta, 0.1).tolist() == [0, 0, 0, 0]
    assert trim(delta, 1).tolist() == delta.tolist()
    # 0.29 · 100 is 28.999… in binary; the share that was asked for is 29 entries.
    assert trim(torch.arange(1.0, 101.0), 0.29).count_nonzero() == 29


@settings(deadline=None)
@given(seed=st.integers(0, 99), count=st.sampled_from([1, 3, 5]))
@pytest.mark.parametrize("election", ["total", "frequency"])
def test_disjoint_mean_equals_pefts(seed, count, election):
    deltas = random_deltas(seed, count)  # an odd number of votes, so that none is a draw
    stacked = torch.stack(deltas)
    mask = merge_utils.calculate_majority_sign_mask(stacked, election)
    expected = merge_utils.disjoint_merge(stacked, mask)
    torch.testing.assert_close(disjoint_mean(deltas, election), expected)


def test_a_draw_elects_nobody():
    left, right = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([-1.0, 0.0, -1.0])
    assert disjoint_mean([left, right], "total").tolist() == [0, 0, 3]
    assert disjoint_mean([left, right], "frequency").tolist() == [0, 0, 0]


def test_dropping_keeps_the_mean():
    delta = torch.linspace(-1, 1, 50, dtype=torch.float64)
    runs = torch.stack([drop_and_rescale(delta, 0.25, seed) for seed in range(4000)])
    is_kept = runs != 0
    torch.testing.assert_close(runs, torch.where(is_kept, 4 * delta, 0))
    # Standard error of the share kept: sqrt(0.25 · 0.75 / 4000) = 0.007; five of them.
    assert (is_kept.double().mean(0) - 0.25).abs().max() < 0.035
    assert torch.equal(drop_and_rescale(delta, 1, 3), delta)


def test_masks_depend_on_the_seed_only():
    delta = torch.ones(64, dtype=torch.float64)
    first = drop_and_rescale(delta, 0.5, 1)
    assert torch.equal(first, drop_and_rescale(delta.float(), 0.5, 1).double())
    assert not torch.equal(first, drop_and_rescale(delta, 0.5, 2))
