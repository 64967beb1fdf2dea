"""Core space holds the experts without loss; its helpers keep what has weight."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.diffusion.lora import LoraLayer
from safetydpo_kedro.merging.core import core_space, orthonormal_factor, significant


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    ranks=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_there_and_back(shape, ranks, seed):
    torch.manual_seed(seed)
    layers = [
        LoraLayer(torch.randn(r, shape[1]).double(), torch.randn(shape[0], r).double(), 0.5 - i)
        for i, r in enumerate(ranks)
    ]
    space = core_space(layers)
    for layer, core in zip(layers, space.cores, strict=True):
        torch.testing.assert_close(space.q_b @ core @ space.q_a.T, layer.delta())
        lifted = space.lift(core, torch.eye(core.shape[1]).double())
        torch.testing.assert_close(lifted.delta(), layer.delta())
    for q in (space.q_b, space.q_a):
        assert q.shape[1] == min(len(q), sum(ranks))
        torch.testing.assert_close(q.T @ q, torch.eye(q.shape[1]).double())


def test_core_space_keeps_the_kernel():
    layer = LoraLayer(torch.randn(2, 18), torch.randn(5, 2), kernel=(3, 3))
    space = core_space([layer, layer])
    lifted = space.lift(space.cores[0], torch.eye(space.cores.shape[2]))
    assert lifted.weight_delta().shape == (5, 2, 3, 3)


def test_orthonormal_factor_is_the_nearest():
    torch.manual_seed(0)
    matrix = torch.randn(6, 3).double()
    factor = orthonormal_factor(matrix)
    torch.testing.assert_close(factor.T @ factor, torch.eye(3).double())
    for _ in range(20):
        other = torch.linalg.qr(factor + 0.3 * torch.randn(6, 3).double()).Q
        other = other * (other.T @ factor).diagonal().sign()
        assert (factor - matrix).norm() < (other - matrix).norm()


def test_equal_columns_share_their_direction():
    column = torch.tensor([[3.0], [4.0]])
    expected = column.expand(2, 2) / 5 / 2**0.5
    torch.testing.assert_close(orthonormal_factor(column.expand(2, 2)), expected)


def test_nothing_is_significant_in_a_zero_matrix():
    assert significant(torch.tensor([1.0, 1e-3, 1e-9]), 10).tolist() == [True, True, False]
    assert not significant(torch.zeros(3), 10).any()
    assert not orthonormal_factor(torch.zeros(3, 2)).any()
