"""The kernel distance against its definition and torch-fidelity's maths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_kid import kid_features_to_metric

from safetydpo_kedro.metrics.config import KidConfig
from safetydpo_kedro.metrics.kid import kernel_distance


def features(count, shift=0.0, seed=0, width=6):
    return np.random.default_rng(seed).normal(shift, 1.0, (count, width))


def literal(x, y):
    """The unbiased MMD² as the formula says, one pair of images after the other."""

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    m = len(x)
    same = sum(k(x[i], x[j]) + k(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    cross = sum(k(a, b) for a in x for b in y)
    return same / (m * (m - 1)) - 2 * cross / m**2


def test_over_one_subset_of_all_it_is_the_definition():
    x, y = features(12), features(12, shift=0.5, seed=1)
    mean, std = kernel_distance(x, y, KidConfig(subsets=1, subset_size=12))
    assert mean == pytest.approx(literal(x, y), rel=1e-9) and std == 0


def test_float32_features_are_summed_in_float64():
    x, y = (10 + features(12, seed=i).astype(np.float32) for i in (0, 1))
    mean, _ = kernel_distance(x, y)  # a difference of sums a thousand times as large
    assert mean == pytest.approx(literal(x.astype(float), y.astype(float)), rel=1e-9)


def test_equals_torch_fidelity_on_given_features():
    x, y = features(40, width=64), features(40, shift=0.3, seed=1, width=64)
    theirs = kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=1,
        kid_subset_size=40,
        verbose=False,
    )["kernel_inception_distance_mean"]
    ours, _ = kernel_distance(x, y, KidConfig(subsets=1, subset_size=40))
    assert ours == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.parametrize(("n", "m"), [(8, 8), (12, 5)])
def test_it_is_unbiased_however_few_images_there_are(n, m):
    config = KidConfig(subsets=3)
    sets = [(features(n, seed=2 * i), features(m, seed=2 * i + 1)) for i in range(300)]
    distances = [kernel_distance(*pair, config)[0] for pair in sets]
    error = np.std(distances) / np.sqrt(len(distances))
    assert abs(np.mean(distances)) < 3 * error
    assert min(distances) < 0  # and so it has to be negative at times


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_neither_side_nor_order_matters(seed, count):
    x, y = features(count, seed=seed), features(count, shift=0.5, seed=seed + 1)
    distance, _ = kernel_distance(x, y)
    assert distance == pytest.approx(literal(x, y), rel=1e-9, abs=1e-9)
    assert kernel_distance(y, x[::-1])[0] == pytest.approx(distance, rel=1e-9, abs=1e-9)


def test_mean_and_deviation_are_those_of_the_subsets():
    x, y = features(40), features(30, shift=0.5, seed=1)
    mean, std = kernel_distance(x, y, KidConfig(subsets=400, subset_size=20))
    rng = np.random.default_rng(0)
    drawn = [literal(rng.permutation(x)[:20], rng.permutation(y)[:20]) for _ in range(40)]
    assert abs(mean - np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(len(drawn))
    assert std == pytest.approx(np.std(drawn), rel=0.5)


def test_the_seed_alone_decides_and_the_global_generator_stays():
    x, y = features(50), features(30, shift=0.2, seed=1)
    config = KidConfig(subsets=5, subset_size=10, seed=3)
    state = torch.get_rng_state()
    first = kernel_distance(x, y, config)
    torch.testing.assert_close(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert kernel_distance(x, y, config) == first
    assert kernel_distance(x, y, config.model_copy(update={"seed": 4})) != first


def test_subsets_are_no_larger_than_the_smaller_set():
    x, y = features(50), features(7, seed=1)
    cut = kernel_distance(x, y, KidConfig(subset_size=7))
    assert kernel_distance(x, y, KidConfig(subset_size=1000)) == cut


@pytest.mark.parametrize("shapes", [((5, 3), (5, 4)), ((5, 3), (1, 3)), ((5,), (5,))])
def test_refuses_what_cannot_be_compared(shapes):
    with pytest.raises(ValueError, match="kernel distance needs"):
        kernel_distance(*(np.zeros(shape) for shape in shapes))
