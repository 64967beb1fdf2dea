"""Stacking is exact; truncation is the best approximation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.diffusion.lora import LoraLayer
from safetydpo_kedro.merging.compress import stack, truncate_layer


def random_layer(n_out, n_in, rank, scale=1.0, dtype=torch.float64) -> LoraLayer:
    return LoraLayer(torch.randn(rank, n_in).to(dtype), torch.randn(n_out, rank).to(dtype), scale)


def test_stack_is_the_weighted_sum():
    torch.manual_seed(0)
    layers = [random_layer(5, 3, 1, 2.0), random_layer(5, 3, 4, 0.25)]
    rows = torch.rand(5, dtype=torch.float64)
    merged = stack(layers, [rows, -0.5])
    assert merged.rank == 5
    expected = rows[:, None] * layers[0].delta() - 0.5 * layers[1].delta()
    torch.testing.assert_close(merged.delta(), expected)


def test_stack_keeps_the_widest_dtype():
    half, single = (random_layer(2, 2, 1, dtype=d) for d in (torch.bfloat16, torch.float32))
    assert stack([half, half], [1.0, 1.0]).b.dtype == torch.bfloat16
    assert stack([half, single], [1.0, 1.0]).a.dtype == torch.float32


@settings(deadline=None)
@given(
    n_out=st.integers(1, 8),
    n_in=st.integers(1, 8),
    full_rank=st.integers(1, 10),
    rank=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_truncation_is_optimal(n_out, n_in, full_rank, rank, seed):
    torch.manual_seed(seed)
    layer = random_layer(n_out, n_in, full_rank, scale=0.5)
    cut, error = truncate_layer(layer, rank)
    u, s, vt = torch.linalg.svd(layer.delta(), full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ vt[:rank]
    assert cut.rank <= rank
    torch.testing.assert_close(cut.delta(), best)
    measured = (cut.delta() - layer.delta()).norm() / layer.delta().norm()
    assert error == pytest.approx(measured.item(), abs=1e-12)
    assert 0 <= error <= 1


def test_truncation_in_single_precision():
    torch.manual_seed(0)
    layer = random_layer(40, 30, 12, dtype=torch.float32)
    cut, error = truncate_layer(layer, 4)
    s = torch.linalg.svdvals(layer.delta().double())
    assert cut.a.dtype == cut.b.dtype == torch.float32
    assert error == pytest.approx((s[4:].norm() / s.norm()).item(), rel=1e-6)


def test_truncate_nothing():
    zero = LoraLayer(torch.zeros(3, 4), torch.zeros(5, 3))
    cut, error = truncate_layer(zero, 1)
    assert error == 0
    assert not cut.delta().any()
