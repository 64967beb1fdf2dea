"""Co-Merge, mean and sum equal their definitions on dense ΔW in float64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging import merge

from .small_experts import SHAPES, dense, make_experts, record_profile


def owners(statistics):
    """Definition of the default rule: most wins, then largest mean activation, unit by unit."""
    wins, sums = statistics.wins[0].tolist(), statistics.absolute_sum[0].tolist()
    experts, units = range(len(wins)), range(len(wins[0]))
    return [max(experts, key=lambda e: (wins[e][unit], sums[e][unit])) for unit in units]


def map_layers(adapter, function):
    return LoraAdapter({name: function(name, layer) for name, layer in adapter.layers.items()})


def test_linear(experts):
    merged, error = merge("linear", experts)
    for layer in SHAPES:
        expected = sum(dense(adapter, layer) for adapter in experts.values()) / 3
        torch.testing.assert_close(dense(merged, layer), expected)
        assert merged.layers[layer].rank == 6
        assert error[layer] == 0


def test_linear_counts_a_missing_layer_as_zero(experts):
    partial = LoraAdapter({"block.to_q": experts["hate"].layers["block.to_q"]})
    experts = experts | {"hate": partial}
    merged = merge("linear", experts).adapter
    for layer in SHAPES:
        expected = sum(dense(adapter, layer) for adapter in experts.values()) / 3
        torch.testing.assert_close(dense(merged, layer), expected)


def test_task_arithmetic(experts):
    weights = {"hate": 1.0, "sexual": -0.5, "violence": 2.0}
    plain = merge("task_arithmetic", experts).adapter
    weighted = merge("task_arithmetic", experts, {"weights": weights, "strength": 0.7}).adapter
    for layer in SHAPES:
        deltas = {name: dense(adapter, layer) for name, adapter in experts.items()}
        torch.testing.assert_close(dense(plain, layer), sum(deltas.values()))
        expected = 0.7 * sum(weights[name] * delta for name, delta in deltas.items())
        torch.testing.assert_close(dense(weighted, layer), expected)


def test_co_merge_takes_the_owners_row(experts):
    profile = record_profile(experts)
    merged = merge("co_merge", experts, profile=profile).adapter
    for layer in SHAPES:
        deltas = torch.stack([dense(experts[name], layer) for name in sorted(experts)])
        owner = owners(profile.output[layer])
        expected = deltas[owner, torch.arange(len(owner))]
        torch.testing.assert_close(dense(merged, layer), expected)


def test_co_merge_factor_rows(experts):
    profile = record_profile(experts)
    merged = merge("co_merge", experts, {"granularity": "factor_row"}, profile).adapter
    for layer in SHAPES:
        up_owner = owners(profile.output[layer])
        down_owner = owners(profile.inner[layer])
        a, b = torch.zeros(3, SHAPES[layer][1]), torch.zeros(SHAPES[layer][0], 3)
        a, b = a.double(), b.double()
        names = sorted(experts)
        for unit, e in enumerate(down_owner):
            a[unit] = experts[names[e]].layers[layer].a[unit]
        for unit, e in enumerate(up_owner):
            factors = experts[names[e]].layers[layer]
            b[unit, : factors.rank] = factors.scale * factors.b[unit]
        torch.testing.assert_close(merged.layers[layer].a, a)
        torch.testing.assert_close(merged.layers[layer].b, b)


def test_co_merge_top_fraction(experts):
    profile = record_profile(experts)
    config = {
        "ownership": "top_fraction",
        "statistic": "mean_activation",
        "fraction": 0.5,
        "shared_claims": "sum",
    }
    merged = merge("co_merge", experts, config, profile).adapter
    for layer, (n_out, _) in SHAPES.items():
        expected = torch.zeros(SHAPES[layer], dtype=torch.float64)
        for index, name in enumerate(sorted(experts)):
            strongest = profile.output[layer].magnitude[0, index].argsort(descending=True)
            kept = strongest[: n_out // 2]
            expected[kept] += dense(experts[name], layer)[kept]
        torch.testing.assert_close(dense(merged, layer), expected)


def test_co_merge_expert_without_a_layer(experts):
    partial = LoraAdapter({"block.to_q": experts["hate"].layers["block.to_q"]})
    experts = experts | {"hate": partial}
    profile = record_profile(experts)
    for granularity in ("delta_row", "factor_row"):
        merged = merge("co_merge", experts, {"granularity": granularity}, profile).adapter
        assert merged.layers.keys() == SHAPES.keys()
    merged = merge("co_merge", experts, profile=profile).adapter
    for layer in SHAPES:
        deltas = torch.stack([dense(experts[name], layer) for name in sorted(experts)])
        owner = owners(profile.output[layer])
        torch.testing.assert_close(dense(merged, layer), deltas[owner, torch.arange(len(owner))])


def test_equal_experts_merge_to_one_of_them(experts):
    twins = {"a": experts["hate"], "b": experts["hate"]}
    profile = record_profile(twins)
    merged = merge("co_merge", twins, profile=profile).adapter
    for layer in SHAPES:
        assert (profile.output[layer].wins == profile.output[layer].count).all()
        torch.testing.assert_close(dense(merged, layer), dense(experts["hate"], layer))


def test_row_without_an_active_expert_is_zero(experts):
    def silence_row_two(_, layer):
        b = layer.b.clone()
        b[2] = 0
        return LoraLayer(layer.a, b, layer.scale)

    experts = {name: map_layers(adapter, silence_row_two) for name, adapter in experts.items()}
    merged = merge("co_merge", experts, profile=record_profile(experts)).adapter
    for layer in SHAPES:
        assert not dense(merged, layer)[2].any()
        assert dense(merged, layer)[1].any()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 20), owner=st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_disjoint_experts_add_up(seed, owner):
    """Experts that write different rows keep all of them."""
    experts = make_experts({"a": 2, "b": 1, "c": 3}, seed)
    for index, name in enumerate("abc"):

        def keep_own(_, layer, index=index):
            mine = torch.tensor([o == index for o in owner[: len(layer.b)]]).double()
            return LoraLayer(layer.a, mine[:, None] * layer.b, layer.scale)

        experts[name] = map_layers(experts[name], keep_own)
    merged = merge("co_merge", experts, profile=record_profile(experts)).adapter
    for layer in SHAPES:
        expected = sum(dense(adapter, layer) for adapter in experts.values())
        torch.testing.assert_close(dense(merged, layer), expected)
