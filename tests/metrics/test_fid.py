"""Fréchet distance against its closed form and against torch-fidelity's."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_statistics_to_metric

from safetydpo_kedro.metrics.fid import frechet_distance, small_sample_warning


def closed_form(a, b):
    """The definition, in float64, with scipy's matrix root."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(cov_a @ cov_b).real
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)


def gaussians(n, m, width, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, width)) @ rng.normal(size=(width, width))
    b = rng.normal(size=(m, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)
    return a, b


@pytest.mark.parametrize(("n", "m", "width"), [(500, 300, 8), (200, 200, 32)])
def test_equals_the_closed_form(n, m, width):
    a, b = gaussians(n, m, width)
    assert frechet_distance(a, b) == pytest.approx(closed_form(a, b), rel=1e-4)


def test_small_float32_features_are_summed_in_float64():
    a, b = (features.astype(np.float32) * 1e-3 for features in gaussians(300, 300, 16))
    expected = closed_form(a.astype(np.float64), b.astype(np.float64))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_equal_sets_have_distance_zero_and_a_shift_its_square():
    a, _ = gaussians(100, 100, 6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 2.0) == pytest.approx(6 * 4, rel=1e-6)


def test_singular_covariances_stay_finite():
    a, b = gaussians(10, 12, 32)
    distance = frechet_distance(a, b)
    # The zero eigenvalues add nothing, so the trace over the common range is all there is.
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root_a = np.linalg.svd(a - a.mean(0), full_matrices=False)
    half = (root_a[2].T * root_a[1] / np.sqrt(len(a) - 1)) @ root_a[2]
    trace = np.sqrt(np.linalg.eigvalsh(half @ cov_b @ half).clip(0)).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b) - 2 * trace
    assert distance == pytest.approx(expected, rel=1e-4)


def test_refuses_what_has_no_covariance():
    with pytest.raises(ValueError, match="got 1 real"):
        frechet_distance(np.ones((1, 4)), np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        frechet_distance(np.ones((5, 4)), np.ones((5, 3)))


def test_equals_torch_fidelity_on_given_features():
    rng = np.random.default_rng(3)
    real, drawn = rng.normal(size=(300, 32)), rng.normal(0.2, 1.3, size=(250, 32))
    statistics = [{"mu": x.mean(axis=0), "sigma": np.cov(x, rowvar=False)} for x in (real, drawn)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(real, drawn) == pytest.approx(theirs, rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 40), st.floats(0.1, 10))
def test_it_is_a_squared_distance(seed, n, m, scale):
    a, b = gaussians(n, m, 5, seed)
    distance = frechet_distance(a, b)
    size = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    close = {"rel": 1e-4, "abs": 1e-5 * size}
    assert distance > -close["abs"]
    assert frechet_distance(b, a) == pytest.approx(distance, **close)
    # Neither where the origin lies nor how the axes are turned matters; units enter squared.
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
    moved = frechet_distance(a @ rotation + 3, b @ rotation + 3)
    assert moved == pytest.approx(distance, **close)
    scaled = frechet_distance(scale * a, scale * b) / scale**2
    assert scaled == pytest.approx(distance, **close)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((100, 5000), "over 100 real and 5000 generated images in 2048"),
        ((5000, 2048), "singular"),
        ((4096, 9000), "biased upwards: .* more than 4096 images"),
        ((4097, 9000), None),
    ],
)
def test_few_images_are_warned_about(images, words):
    warning = small_sample_warning(*images, 2048)
    assert warning is None if words is None else re.search(words, warning)


def test_what_the_warning_says_of_covariances_is_so():
    def rank(n):
        return np.linalg.matrix_rank(np.cov(gaussians(n, 2, 6)[0], rowvar=False))

    for n in (4, 6, 7):
        assert (rank(n) < 6) == ("singular" in small_sample_warning(n, n, 6))
