"""Strategies on entries and on singular vectors equal their definitions on dense ΔW in float64."""

from __future__ import annotations

import math

import pytest
import torch

from safetydpo_kedro.merging import merge
from safetydpo_kedro.merging.entries import drop_and_rescale
from safetydpo_kedro.preference.noise import key

from .small_experts import SHAPES, dense, make_experts

FULL = 24  # a rank that cuts nothing of the small layers


def trimmed(delta, density):
    """Definition: sort by magnitude, keep the first ones."""
    entries = sorted(delta.flatten().tolist(), key=abs, reverse=True)
    smallest = abs(entries[round(density * len(entries)) - 1])
    return torch.where(delta.abs() >= smallest, delta, 0)


def disjoint_mean(deltas, frequency=False):
    """Definition, entry by entry: the mean of those with the sign of the vote."""
    flat = [delta.flatten().tolist() for delta in deltas]
    merged = []
    for values in zip(*flat, strict=True):
        votes = [(v > 0) - (v < 0) for v in values] if frequency else values
        agreeing = [v for v in values if v * sum(votes) > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return torch.tensor(merged, dtype=torch.float64).reshape(deltas[0].shape)


def dense_experts(experts, layer):
    return [dense(adapter, layer) for _, adapter in sorted(experts.items())]


def best_approximation(delta, rank):
    u, s, vt = torch.linalg.svd(delta)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def polar(matrix):
    p, _, qt = torch.linalg.svd(matrix, full_matrices=False)
    return p @ qt


def test_cat_stacks_factors_and_refuses_a_rank(experts):
    merged, error = merge("cat", experts)
    for layer in SHAPES:
        torch.testing.assert_close(dense(merged, layer), sum(dense_experts(experts, layer)))
        rows = [adapter.layers[layer].a for adapter in experts.values()]
        assert torch.equal(merged.layers[layer].a, torch.cat(rows))
        assert error[layer] == 0
    with pytest.raises(ValueError, match="got rank 2; leave it out, or use task_arithmetic or svd"):
        merge("cat", experts, {"rank": 2})


def test_svd_is_cut_to_the_largest_rank(experts):
    for rank, expected_rank in ((None, 3), (1, 1)):
        merged, error = merge("svd", experts, {"rank": rank})
        for layer in SHAPES:
            total = sum(dense_experts(experts, layer))
            best = best_approximation(total, expected_rank)
            assert merged.layers[layer].rank == expected_rank
            torch.testing.assert_close(dense(merged, layer), best)
            assert error[layer] == pytest.approx(float((best - total).norm() / total.norm()))


def test_linear_factors(experts):
    merged = merge("linear_factors", experts, {"weights": {"hate": 1, "sexual": -2, "violence": 1}})
    weights = {"hate": 1, "sexual": -2, "violence": 1}
    for layer, (n_out, n_in) in SHAPES.items():
        a, b = torch.zeros(3, n_in).double(), torch.zeros(n_out, 3).double()
        for name, adapter in experts.items():
            factors = adapter.layers[layer]
            root = math.sqrt(abs(weights[name]) * factors.scale) / 3
            sign = -1 if weights[name] < 0 else 1
            a[: factors.rank] += sign * root * factors.a
            b[:, : factors.rank] += root * factors.b
        torch.testing.assert_close(dense(merged.adapter, layer), b @ a)


def test_linear_factors_is_not_the_mean(experts):
    factors, mean = merge("linear_factors", experts).adapter, merge("linear", experts).adapter
    for layer in SHAPES:
        difference = dense(factors, layer) - dense(mean, layer)
        assert difference.norm() > 0.5 * dense(mean, layer).norm()


@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
def test_magnitude_prune(experts, density):
    merged = merge("magnitude_prune", experts, {"density": density, "rank": FULL}).adapter
    for layer in SHAPES:
        expected = sum(trimmed(delta, density) for delta in dense_experts(experts, layer))
        torch.testing.assert_close(dense(merged, layer), expected)


@pytest.mark.parametrize("election", ["total", "frequency"])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties(experts, density, election):
    config = {"density": density, "election": election, "rank": FULL}
    merged = merge("ties", experts, config).adapter
    for layer in SHAPES:
        kept = [trimmed(delta, density) for delta in dense_experts(experts, layer)]
        expected = disjoint_mean(kept, election == "frequency")
        torch.testing.assert_close(dense(merged, layer), expected)


def test_dare(experts):
    """Each layer of each expert has its own mask, drawn from seed, layer and expert."""
    config = {"density": 0.4, "seed": 7, "rank": FULL}
    linear = merge("dare_linear", experts, config).adapter
    ties = merge("dare_ties", experts, config).adapter
    for layer in SHAPES:
        kept = [
            drop_and_rescale(dense(adapter, layer), 0.4, key(7, layer, name))
            for name, adapter in experts.items()
        ]
        assert len({tuple((delta != 0).flatten().tolist()) for delta in kept}) == 3
        torch.testing.assert_close(dense(linear, layer), sum(kept))
        torch.testing.assert_close(dense(ties, layer), disjoint_mean(kept))


def test_dare_masks_do_not_depend_on_other_experts(experts):
    two = {name: experts[name] for name in ("hate", "violence")}
    with_all, without = (
        merge("dare_linear", some, {"rank": FULL, "weights": weights}).adapter
        for some, weights in ((experts, {"hate": 1, "sexual": 0, "violence": 1}), (two, None))
    )
    for layer in SHAPES:
        torch.testing.assert_close(dense(with_all, layer), dense(without, layer))


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_knots(experts, density):
    merged, error = merge("knots", experts, {"density": density})
    for layer in SHAPES:
        deltas = dense_experts(experts, layer)
        u, s, vt = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
        parts = [trimmed(part, density) for part in vt.split(deltas[0].shape[1], dim=1)]
        torch.testing.assert_close(dense(merged, layer), (u * s) @ disjoint_mean(parts))
        assert error[layer] == 0


def test_knots_leaves_out_directions_without_weight():
    """Rank 2 in 6 outputs: the singular vectors of the other four are arbitrary."""
    experts = make_experts({"a": 1, "b": 1})
    merged = merge("knots", experts, {"density": 0.5}).adapter
    deltas = dense_experts(experts, "block.to_q")
    u, s, vt = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
    parts = [trimmed(part, 0.5) for part in vt[:2].split(4, dim=1)]
    expected = (u[:, :2] * s[:2]) @ disjoint_mean(parts)
    torch.testing.assert_close(dense(merged, "block.to_q"), expected)


def test_knots_mean_is_the_mean(experts):
    knots, mean = merge("knots", experts, {"inner": "mean"}).adapter, merge("linear", experts)
    for layer in SHAPES:
        torch.testing.assert_close(dense(knots, layer), dense(mean.adapter, layer))


@pytest.mark.parametrize(("kept", "tops"), [(None, (1, 1, 1)), (0.6, (1, 2, 1)), (1, (2, 3, 1))])
def test_tsv(experts, kept, tops):
    merged = merge("tsv", experts, {"kept": kept}).adapter
    for layer in SHAPES:
        lefts, values, rights = [], [], []
        for delta, top in zip(dense_experts(experts, layer), tops, strict=True):
            u, s, vt = torch.linalg.svd(delta)
            lefts.append(u[:, :top])
            values.append(s[:top])
            rights.append(vt[:top].T)
        left, right = polar(torch.cat(lefts, dim=1)), polar(torch.cat(rights, dim=1))
        expected = (left * torch.cat(values)) @ right.T
        torch.testing.assert_close(dense(merged, layer), expected)


def test_equal_experts_share_their_singular_vectors(experts):
    twins = {"a": experts["hate"], "b": experts["hate"]}
    merged = merge("tsv", twins, {"kept": 1.0}).adapter
    for layer in SHAPES:
        torch.testing.assert_close(dense(merged, layer), dense(experts["hate"], layer))


def test_iso_c():
    experts = make_experts({"a": 1, "b": 2})
    merged = merge("iso_c", experts).adapter
    for layer in SHAPES:
        u, s, vt = torch.linalg.svd(sum(dense_experts(experts, layer)), full_matrices=False)
        expected = s[:3].mean() * u[:, :3] @ vt[:3]
        torch.testing.assert_close(dense(merged, layer), expected)


def test_vectors_without_weight_take_no_room_in_tsv(experts):
    weights = {"hate": 1, "sexual": 0, "violence": 1}
    with_zero = merge("tsv", experts, {"kept": 1.0, "weights": weights}).adapter
    two = {name: experts[name] for name in ("hate", "violence")}
    without = merge("tsv", two, {"kept": 1.0}).adapter
    for layer in SHAPES:
        torch.testing.assert_close(dense(with_zero, layer), dense(without, layer))


def test_vectors_without_weight_are_not_counted_in_knots():
    """Equal experts of rank 1: one direction, of whose entries each keeps half."""
    (expert,) = make_experts({"a": 1}).values()
    merged = merge("knots", {"a": expert, "b": expert}, {"density": 0.5}).adapter
    for layer in SHAPES:
        delta = dense(expert, layer)
        expected = torch.stack([trimmed(row, 0.5) for row in delta])
        torch.testing.assert_close(dense(merged, layer), expected)
