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
    contrast_scores,
    share_claims,
    share_weights,
    top_fraction_claims,
    unit_weights,
)
from safetydpo_kedro.merging.ownership_tables import ownership_shares, win_concentration
from safetydpo_kedro.merging.profile import NOT_COUNTED, ActivationProfile, UnitStatistics


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


def profile_of(statistics: UnitStatistics) -> ActivationProfile:
    return ActivationProfile(statistics.experts, statistics.groups, {"x": statistics}, {})


def random_statistics(count: int = 10, units: int = 40) -> UnitStatistics:
    """Unsafe and safe inputs of two categories, neutral ones, and the experts of both."""
    generator = torch.Generator().manual_seed(0)
    groups = ("unsafe/hate", "unsafe/sexual", "safe/hate", "safe/sexual", "neutral")
    absolute = torch.rand(5, 2, units, generator=generator, dtype=torch.float64) * count
    first = torch.randint(count + 1, (5, 1, units), generator=generator)
    wins = torch.cat([first, count - first], 1)
    counts = torch.full((5,), count)
    return UnitStatistics(wins, absolute, absolute**2, counts, groups, ("hate", "sexual"))


def test_shares_of_squared_activations():
    config = OwnershipConfig(ownership="share", statistic="mean_square")
    weights = unit_weights(LAYERS, config)
    # Squared sums of "x": first 81, 4 + 4, 0 and second 4 + 16, 1 + 1, 0; of "y": 2 and 0.5.
    expected = [[81 / 101, 8 / 10, 0], [20 / 101, 2 / 10, 0]]
    torch.testing.assert_close(weights["x"], torch.tensor(expected, dtype=torch.float64))
    assert weights["y"].tolist() == [[0.8], [0.2]]
    added = unit_weights(LAYERS, config.model_copy(update={"shared_claims": "sum"}))
    assert added["y"].tolist() == [[1], [0.25]]


def test_shares_of_wins():
    weights = unit_weights(LAYERS, OwnershipConfig(ownership="share"))
    torch.testing.assert_close(weights["x"][:, :2].sum(0), torch.ones(2, dtype=torch.float64))
    assert weights["x"][:, 1:].tolist() == [[0.5, 0], [0.5, 0]]
    assert weights["y"].tolist() == [[1], [0]]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=2), min_size=1, max_size=5),
    st.floats(0.2, 5),
)
def test_shares_are_a_softmax_of_logarithms(rows, temperature):
    score = torch.tensor(rows, dtype=torch.float64)
    weights = share_weights(score, temperature, "mean")
    torch.testing.assert_close(weights, torch.softmax(score.log() / temperature, 0))
    added = share_weights(score, temperature, "sum")
    torch.testing.assert_close(added, weights / weights.amax(0))


def test_temperature_goes_from_argmax_to_equal_shares():
    score = torch.tensor([[3.0, 0.0, 0.0], [2.0, 1e-30, 0.0], [0.0, 1e-31, 0.0]])
    assert share_weights(score, 1e-4, "mean").tolist() == argmax_claims(score, score).tolist()
    equal = share_claims(score > 0, "mean")
    torch.testing.assert_close(share_weights(score, 1e6, "mean"), equal, rtol=1e-3, atol=0)


def test_contrast_is_unsafe_minus_safe_of_the_experts_own_category():
    statistics = random_statistics()
    activation = statistics.absolute_sum / 10
    expected = torch.stack(
        [activation[0, 0] - activation[2, 0], activation[1, 1] - activation[3, 1]]
    )
    assert (expected < 0).any()
    torch.testing.assert_close(contrast_scores(statistics), expected.clamp(min=0))
    weights = unit_weights({"x": statistics}, OwnershipConfig(statistic="contrast"))["x"]
    for unit in range(40):
        owner = int(expected[:, unit].argmax())
        active = float(expected[owner, unit] > 0)
        assert weights[:, unit].tolist() == [active * (owner == 0), active * (owner == 1)]


@pytest.mark.parametrize("lacking", ["unsafe/sexual", "safe/hate"])
def test_contrast_needs_both_sides_of_every_category(lacking):
    statistics = random_statistics()
    index = statistics.groups.index(lacking)
    remedy = r".*prompts \[unsafe, safe\].*after its category"
    statistics.count[index] = 0
    with pytest.raises(ValueError, match=rf"needs the groups \['{lacking}'\]{remedy}"):
        contrast_scores(statistics)
    kept = [kind for kind in ("unsafe", "safe", "neutral") if not lacking.startswith(kind)]
    with pytest.raises(ValueError, match=rf"needs the groups \[.*'{lacking}'.*\]{remedy}"):
        contrast_scores(statistics.of_kinds(kept))
    with pytest.raises(ValueError, match="'contrast' needs the groups"):
        unit_weights(LAYERS, OwnershipConfig(statistic="contrast"))


@pytest.mark.parametrize("statistic", ["wins", "mean_activation", "mean_square"])
def test_only_the_named_kinds_of_inputs_count(statistic):
    statistics = random_statistics()
    names = {"wins": "wins", "mean_activation": "absolute_sum", "mean_square": "square_sum"}
    sums = getattr(statistics, names[statistic])

    def owners(kinds):
        config = OwnershipConfig(statistic=statistic, groups=kinds)
        return unit_weights({"x": statistics}, config)["x"]

    for kinds, rows in ((("unsafe",), [0, 1]), (("safe", "neutral"), [2, 3, 4]), (None, range(5))):
        total = sums[list(rows)].sum(0)
        leads = total == total.amax(0)
        clear = leads.sum(0) == 1
        assert torch.equal(owners(kinds)[:, clear].bool(), leads[:, clear])
    assert not torch.equal(owners(("unsafe",)), owners(("safe",)))
    with pytest.raises(ValueError, match="'empty'"):
        owners(("empty",))


def test_ownership_table():
    statistics = random_statistics()
    config = OwnershipConfig(groups=("safe",))
    table = ownership_shares(profile_of(statistics), config)
    assert table["expert"].tolist() == ["hate", "sexual"]
    assert (table["units"] == 40).all()
    owned = unit_weights({"x": statistics}, config)["x"].mean(1)
    assert table["owned"].tolist() == pytest.approx(owned.tolist())
    wins = statistics.wins[2:4].sum((0, 2)) / (2 * 10 * 40)
    assert table["wins"].tolist() == pytest.approx(wins.tolist())
    activation = statistics.absolute_sum[2:4].sum((0, 2)) / (2 * 10 * 40)
    assert table["mean_activation"].tolist() == pytest.approx(activation.tolist())
    statistics.wins.fill_(NOT_COUNTED)
    config = OwnershipConfig(statistic="mean_activation")
    assert ownership_shares(profile_of(statistics), config)["wins"].isna().all()


@pytest.mark.parametrize("bins", [1, 4, 20])
def test_concentration_of_wins(bins):
    statistics = random_statistics()
    statistics.wins[:, :, 0] = 0  # a unit that nobody wins
    statistics.wins[:, 0, 1], statistics.wins[:, 1, 1] = 10, 0  # one that 'hate' wins everywhere
    table = win_concentration(profile_of(statistics), OwnershipConfig(groups=("unsafe",)), bins)
    expected = dict.fromkeys(table[["expert", "low", "high"]].itertuples(index=False), 0)
    for unit in range(1, 40):
        wins = statistics.wins[:2, :, unit].sum(0)
        leader, share = int(wins.argmax()), int(wins.max()) / int(wins.sum())
        for expert, low, high in expected:
            inside = low <= share < high or share == high == 1
            expected[expert, low, high] += inside and expert == statistics.experts[leader]
    assert table["units"].tolist() == list(expected.values())
    assert table["units"].sum() == 39
    assert table[(table["expert"] == "hate") & (table["high"] == 1)]["units"].item() > 0


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


@pytest.mark.parametrize(
    "wrong", [{"statistic": "win"}, {"fraction": 0}, {"owner": "argmax"}, {"temperature": 0}]
)
def test_wrong_settings(wrong):
    with pytest.raises(ValidationError):
        OwnershipConfig(**wrong)
