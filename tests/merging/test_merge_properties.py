"""What holds for every registered strategy, and the exceptions by name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro import merging
from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.merging import available_strategies

from .small_experts import SHAPES, dense, make_experts, plain_weights, record_profile

STRATEGIES = available_strategies()
KEEP_ALL = {"density": 1.0}
FULL = 24  # a rank that cuts nothing of the small layers
DENSITY = {"dare_linear", "dare_ties", "knots", "magnitude_prune", "ties"}
WEIGHT = st.floats(-3, 3).filter(lambda weight: weight == 0 or abs(weight) > 0.1)
FACTOR = st.floats(0.1, 10) | st.floats(-10, -0.1)

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
few = settings(deadline=None, max_examples=10)


def merge(strategy, experts, config=None, profile=None):
    """Merge; fitted weights are what fitting starts from."""
    return merging.merge(strategy, experts, config, profile, plain_weights(experts))


def keep_all(strategy):
    """Settings under which a strategy of densities keeps every entry."""
    return KEEP_ALL if strategy in DENSITY else {}


def map_layers(adapter, function):
    return LoraAdapter({name: function(name, layer) for name, layer in adapter.layers.items()})


def in_dtype(experts, dtype):
    def convert(_, layer):
        return LoraLayer(layer.a.to(dtype), layer.b.to(dtype), layer.scale)

    return {name: map_layers(adapter, convert) for name, adapter in experts.items()}


def assert_same(left, right, factor=1.0):
    for layer in SHAPES:
        torch.testing.assert_close(dense(left, layer), factor * dense(right, layer))


@few
@given(order=st.permutations(["a", "b", "c"]), seed=st.integers(0, 20))
@every_strategy
def test_order_does_not_matter(strategy, order, seed):
    experts = make_experts({"a": 2, "b": 1, "c": 3}, seed)
    profile = record_profile(experts, seed)
    merged = merge(strategy, experts, profile=profile).adapter
    shuffled = merge(strategy, {name: experts[name] for name in order}, profile=profile).adapter
    for layer in SHAPES:
        assert torch.equal(shuffled.layers[layer].a, merged.layers[layer].a)
        assert torch.equal(shuffled.layers[layer].b, merged.layers[layer].b)


@few
@given(order=st.permutations(["a", "b", "c"]), seed=st.integers(0, 20))
@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if not s.startswith("dare")])
def test_names_do_not_matter(strategy, order, seed):
    """Except to DARE, which draws an expert's masks from its name."""
    experts = make_experts({"a": 2, "b": 1, "c": 3}, seed)
    renamed = {new: experts[old] for new, old in zip(order, experts, strict=True)}
    profile, other = record_profile(experts, seed), record_profile(renamed, seed)
    for layer in SHAPES:
        wins, other_wins = profile.output[layer].wins[0], other.output[layer].wins[0]
        for old, new in zip(experts, order, strict=True):
            assert torch.equal(other_wins["abc".index(new)], wins["abc".index(old)])
    merged = merge(strategy, experts, profile=profile).adapter
    assert_same(merge(strategy, renamed, profile=other).adapter, merged)


@few
@given(seed=st.integers(0, 20), rank=st.integers(1, 4))
@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "iso_c"])
def test_one_expert_merges_to_itself(strategy, seed, rank):
    """Except by Iso-C, which makes all singular values equal."""
    (expert,) = make_experts({"only": rank}, seed).values()
    expert = map_layers(expert, lambda _, layer: LoraLayer(layer.a, layer.b))
    profile = record_profile({"only": expert})
    merged = merge(strategy, {"only": expert}, keep_all(strategy), profile).adapter
    assert_same(merged, expert)
    if strategy not in DENSITY | {"tsv"}:  # these go through ΔW or an SVD; the others are exact
        for name, layer in expert.layers.items():
            assert torch.equal(merged.layers[name].delta(), layer.delta())


def disjoint_experts(seed, owner, both_sides=False):
    """Experts that write different rows, and, if asked, read different columns."""
    experts = make_experts({"a": 2, "b": 1, "c": 3}, seed)
    for index, name in enumerate("abc"):

        def keep_own(_, layer, index=index):
            mine = torch.tensor([o == index for o in owner]).double()
            a = layer.a * mine[: layer.a.shape[1]] if both_sides else layer.a
            return LoraLayer(a, mine[: len(layer.b), None] * layer.b, layer.scale)

        experts[name] = map_layers(experts[name], keep_own)
    return experts


ADDS_UP = sorted(DENSITY | {"cat", "co_merge", "fitted_co_merge", "task_arithmetic"})
OWNER = st.lists(st.integers(0, 2), min_size=6, max_size=6)


@few
@given(seed=st.integers(0, 20), owner=OWNER)
@pytest.mark.parametrize("strategy", ADDS_UP)
def test_disjoint_rows_add_up(strategy, seed, owner):
    """Not by means (a share of 1/E), svd (cut), tsv and iso_c (which change directions)."""
    experts = disjoint_experts(seed, owner)
    merged = merge(strategy, experts, keep_all(strategy), record_profile(experts)).adapter
    for layer in SHAPES:
        expected = sum(dense(adapter, layer) for adapter in experts.values())
        torch.testing.assert_close(dense(merged, layer), expected)


@few
@given(seed=st.integers(0, 20), owner=OWNER)
def test_tsv_adds_up_what_is_orthogonal_on_both_sides(seed, owner):
    experts = disjoint_experts(seed, owner, both_sides=True)
    merged = merge("tsv", experts, {"kept": 1.0}).adapter
    for layer in SHAPES:
        expected = sum(dense(adapter, layer) for adapter in experts.values())
        torch.testing.assert_close(dense(merged, layer), expected)


@few
@given(seed=st.integers(0, 20), factor=FACTOR)
@every_strategy
def test_scaling_all_experts_scales_the_merge(strategy, seed, factor):
    experts = make_experts({"a": 2, "b": 1, "c": 3}, seed)
    scaled = {name: adapter.scaled(factor) for name, adapter in experts.items()}
    profile = record_profile(experts)
    merged = merge(strategy, experts, profile=profile).adapter
    assert_same(merge(strategy, scaled, profile=record_profile(scaled)).adapter, merged, factor)
    by_strength = merge(strategy, experts, {"strength": factor}, profile).adapter
    assert_same(by_strength, merged, factor)


@few
@given(seed=st.integers(0, 20), weights=st.tuples(WEIGHT, WEIGHT, WEIGHT))
@every_strategy
def test_weights_scale_each_expert_first(strategy, seed, weights):
    experts = make_experts({"a": 2, "b": 1, "c": 3}, seed)
    weights = dict(zip(experts, weights, strict=True))
    scaled = {name: adapter.scaled(weights[name]) for name, adapter in experts.items()}
    profile = record_profile(experts)  # weights do not change who owns a unit
    by_weights = merge(strategy, experts, {"weights": weights}, profile).adapter
    assert_same(by_weights, merge(strategy, scaled, profile=profile).adapter)


@every_strategy
def test_weights_name_exactly_the_experts(strategy, experts):
    for weights in ({"hate": 1.0, "sex": 1.0}, {"hate": 1.0}, dict.fromkeys([*experts, "x"], 1.0)):
        with pytest.raises(ValueError, match=f"{strategy}: weights for .*'hate'.*give one weight"):
            merge(strategy, experts, {"weights": weights}, record_profile(experts))
    with pytest.raises(ValueError, match="finite number"):
        merge(strategy, experts, {"weights": dict.fromkeys(experts, float("inf"))})


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "cat"])
def test_rank_limits_and_reports(strategy, experts):
    """Except of cat, which takes no rank."""
    profile = record_profile(experts)
    exact = merge(strategy, experts, {"strength": 0.5, "rank": FULL}, profile).adapter
    cut, error = merge(strategy, experts, {"strength": 0.5, "rank": 2}, profile)
    for layer in SHAPES:
        difference = dense(cut, layer) - dense(exact, layer)
        assert cut.layers[layer].rank == 2
        measured = (difference.norm() / dense(exact, layer).norm()).item()
        assert error[layer] == pytest.approx(measured, abs=1e-12)
        s = torch.linalg.svdvals(dense(exact, layer))
        assert measured == pytest.approx((s[2:].norm() / s.norm()).item())  # the least there is


@every_strategy
def test_without_a_rank_the_sum_of_ranks_is_the_limit(strategy):
    experts = make_experts({"a": 1, "b": 1})
    profile = record_profile(experts)
    merged, error = merge(strategy, experts, {}, profile)
    exact = merge(strategy, experts, {} if strategy == "cat" else {"rank": FULL}, profile).adapter
    for layer in SHAPES:
        assert merged.layers[layer].rank <= 2
        reference = dense(exact, layer)
        measured = (dense(merged, layer) - reference).norm() / reference.norm()
        assert error[layer] == pytest.approx(measured.item(), abs=1e-12)
    cuts = {"dare_linear", "dare_ties", "magnitude_prune", "svd", "ties"}
    assert all((e > 0.01) == (strategy in cuts) for e in error.values())


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_strategy
def test_output_keeps_the_experts_dtype(strategy, dtype, precision, experts):
    experts = in_dtype(experts, dtype)
    profile = record_profile(experts)
    merged = merge(strategy, experts, {"precision": precision}, profile).adapter
    reference = merge(strategy, in_dtype(experts, torch.float64), profile=profile).adapter
    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    for name, layer in merged.layers.items():
        assert layer.a.dtype == layer.b.dtype == dtype
        difference = dense(merged, name) - dense(reference, name)
        assert difference.norm() < tolerance * dense(reference, name).norm()


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "linear_factors"])
def test_a_missing_layer_counts_as_zero(strategy, experts):
    """Except to linear_factors, which reads A of an expert whose B is zero."""
    one = experts["hate"].layers["block.to_q"]
    partial = experts | {"hate": LoraAdapter({"block.to_q": one})}

    def silence(name, layer):
        return layer if name == "block.to_q" else LoraLayer(layer.a, layer.b * 0)

    silent = experts | {"hate": map_layers(experts["hate"], silence)}
    merged = merge(strategy, partial, profile=record_profile(partial))
    assert merged.adapter.layers.keys() == merged.relative_error.keys() == SHAPES.keys()
    assert_same(merged.adapter, merge(strategy, silent, profile=record_profile(silent)).adapter)


@every_strategy
def test_experts_that_do_nothing_merge_to_nothing(strategy, experts):
    def silence(_, layer):
        return LoraLayer(layer.a, layer.b * 0)

    silent = {name: map_layers(adapter, silence) for name, adapter in experts.items()}
    merged, error = merge(strategy, silent, profile=record_profile(silent))
    for layer in SHAPES:
        assert not dense(merged, layer).any()
        assert error[layer] == 0


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s not in {"co_merge", "regmean"}])
def test_convolutions_stay_convolutions(strategy):
    """Strategies that need a profile are tried where profiles of convolutions are recorded."""
    generator = torch.Generator().manual_seed(0)
    experts = {name: random_adapter({"conv": (6, 2, 3, 3)}, 2, generator) for name in "abc"}
    (layer,) = merge(strategy, experts).adapter.layers.values()
    assert layer.kernel == (3, 3)
