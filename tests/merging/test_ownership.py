"""Units go to the experts that the rules name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from safetydpo_kedro.merging.ownership import (
    OwnershipConfig,
    argmax_claims,
    share_claims,
    top_fraction_claims,
    unit_weights,
)
from safetydpo_kedro.merging.profile import UnitStatistics


def statistics(wins, absolute_sum, count) -> UnitStatistics:
    absolute = torch.tensor(absolute_sum, dtype=torch.float64)
    return UnitStatistics(torch.tensor(wins), absolute, absolute.square(), torch.tensor(count))


LAYERS = {
    # Two groups of 4 and 6 positions, two experts, three units. Over both groups: unit 0 is won
    # by the second expert (1:9), unit 1 tied (5:5, the first is stronger), unit 2 unused.
    "x": statistics(
        [[[1, 2, 0], [3, 2, 0]], [[0, 3, 0], [6, 3, 0]]],
        [[[9.0, 2.0, 0.0], [2.0, 1.0, 0.0]], [[0.0, 2.0, 0.0], [4.0, 1.0, 0.0]]],
        [4, 6],
    ),
    "y": statistics([[[2], [0]], [[3], [0]]], [[[1.0], [0.5]], [[1.0], [0.5]]], [4, 6]),
}


def test_wins_over_all_inputs_with_ties_to_the_stronger():
    weights = unit_weights(LAYERS, OwnershipConfig())
    assert weights["x"].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert weights["y"].tolist() == [[1], [0]]


def test_mean_activation():
    weights = unit_weights(LAYERS, OwnershipConfig(statistic="mean_activation"))
    assert weights["x"].tolist() == [[1, 1, 0], [0, 0, 0]]


def test_top_fraction_by_layer():
    config = OwnershipConfig(ownership="top_fraction", fraction=2 / 3)
    weights = unit_weights(LAYERS, config)
    assert weights["x"].tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0]]
    assert weights["y"].tolist() == [[1], [0]]
    summed = unit_weights(LAYERS, config.model_copy(update={"shared_claims": "sum"}))
    assert summed["x"].tolist() == [[1, 1, 0], [1, 1, 0]]


def test_top_fraction_over_all_layers():
    """Mean activations over both layers: first .9 .4 0 | .2, second .6 .2 0 | .1; each keeps 2."""
    config = OwnershipConfig(
        ownership="top_fraction", statistic="mean_activation", fraction=0.5, scope="global"
    )
    weights = unit_weights(LAYERS, config)
    assert weights["x"].tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0]]
    assert weights["y"].tolist() == [[0], [0]]


scores = st.integers(1, 4).flatmap(
    lambda units: st.lists(
        st.lists(st.integers(0, 3), min_size=units, max_size=units), min_size=1, max_size=5
    )
)


@settings(deadline=None)
@given(scores)
def test_argmax_owner_is_the_most_active(rows):
    score = torch.tensor(rows)
    claims = argmax_claims(score, torch.zeros(score.shape))
    assert torch.equal(claims.sum(0), (score.amax(0) > 0).long())
    assert torch.equal((score * claims).sum(0), score.amax(0))


@settings(deadline=None)
@given(scores, st.floats(0.01, 1))
def test_top_fraction_keeps_the_largest(rows, fraction):
    score = torch.tensor(rows)
    claims = top_fraction_claims(score, fraction)
    keep = max(1, round(fraction * score.shape[1]))
    for row, claimed in zip(score, claims, strict=True):
        assert claimed.sum() == min(keep, (row > 0).sum())
        if claimed.any() and not claimed.all():
            assert row[claimed].min() >= row[~claimed].max()


@settings(deadline=None)
@given(scores)
def test_mean_claims_sum_to_one(rows):
    claims = torch.tensor(rows) > 0
    total = share_claims(claims, "mean").sum(0)
    torch.testing.assert_close(total, claims.any(0).double())


@pytest.mark.parametrize("wrong", [{"statistic": "win"}, {"fraction": 0}, {"owner": "argmax"}])
def test_wrong_settings(wrong):
    with pytest.raises(ValidationError):
        OwnershipConfig(**wrong)
