"""Equal to PEFT's own merges of the same adapters, where PEFT merges ΔW."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging import merge

from .small_experts import SHAPES, TinyAttention, dense, make_experts


def peft_merge(experts: dict[str, LoraAdapter], weights: dict[str, float], **options):
    """ΔW of every layer as PEFT merges it, float64."""
    names = sorted(experts)
    model = nn.ModuleDict({"block": TinyAttention()}).double()
    configs = {}
    for name in names:
        layer = experts[name].layers["block.to_q"]
        configs[name] = LoraConfig(
            r=layer.rank, lora_alpha=layer.scale * layer.rank, target_modules=["to_q", "to_out.0"]
        )
    model = get_peft_model(model, configs[names[0]], adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, configs[name])
    modules = dict(model.base_model.model.named_modules())
    for name in names:
        for path, layer in experts[name].layers.items():
            modules[path].lora_A[name].weight.data = layer.a.clone()
            modules[path].lora_B[name].weight.data = layer.b.clone()
    model.add_weighted_adapter(names, [weights[n] for n in names], "merged", **options)
    return {path: modules[path].get_delta_weight("merged").detach() for path in SHAPES}


def same_rank_experts() -> dict[str, LoraAdapter]:
    return make_experts({"hate": 2, "sexual": 2, "violence": 2})


def assert_equal(adapter, expected):
    for layer in SHAPES:
        torch.testing.assert_close(dense(adapter, layer), expected[layer], rtol=1e-5, atol=1e-6)


ONES = {"hate": 1.0, "sexual": 1.0, "violence": 1.0}
SIGNED = {"hate": 1.0, "sexual": -0.5, "violence": 2.0}


@pytest.mark.parametrize("strategy", ["cat", "task_arithmetic"])
def test_sums_equal_pefts_cat(experts, strategy):
    merged = merge(strategy, experts, {"weights": SIGNED}).adapter
    assert_equal(merged, peft_merge(experts, SIGNED, combination_type="cat"))


@pytest.mark.parametrize("rank", [None, 1, 2])
def test_svd(experts, rank):
    merged = merge("svd", experts, {"weights": SIGNED, "rank": rank}).adapter
    assert_equal(merged, peft_merge(experts, SIGNED, combination_type="svd", svd_rank=rank))


@pytest.mark.parametrize("weights", [ONES, SIGNED])
def test_linear_factors_is_pefts_linear(weights):
    experts = same_rank_experts()
    merged = merge("linear_factors", experts, {"weights": weights}).adapter
    ninths = {name: weight / 9 for name, weight in weights.items()}
    assert_equal(merged, peft_merge(experts, ninths, combination_type="linear"))


@pytest.mark.parametrize("density", [0.25, 0.75])
@pytest.mark.parametrize("rank", [2, 4])
def test_ties_and_magnitude_prune_on_updates(density, rank):
    experts = same_rank_experts()
    options = {"svd_rank": rank, "density": density}
    config = {"rank": rank, "density": density}
    ties = peft_merge(experts, ONES, combination_type="ties_svd", **options)
    assert_equal(merge("ties", experts, config).adapter, ties)
    pruned = peft_merge(experts, SIGNED, combination_type="magnitude_prune_svd", **options)
    config["weights"] = SIGNED
    assert_equal(merge("magnitude_prune", experts, config).adapter, pruned)


@pytest.mark.parametrize("strategy", ["dare_linear", "dare_ties"])
@pytest.mark.filterwarnings("ignore:The density 1")
def test_dare_without_dropping(strategy):
    """With dropping, PEFT draws from the global generator: nothing to compare."""
    experts = same_rank_experts()
    merged = merge(strategy, experts, {"density": 1.0, "rank": 3}).adapter
    options = {"combination_type": f"{strategy}_svd", "svd_rank": 3, "density": 1.0}
    assert_equal(merged, peft_merge(experts, ONES, **options))


def test_pefts_ties_of_factors_is_another_merge():
    """Why entries of A and B are not trimmed here: PEFT's ``ties`` is far from TIES on ΔW."""
    experts = same_rank_experts()
    ours = merge("ties", experts, {"density": 0.5}).adapter
    theirs = peft_merge(experts, ONES, combination_type="ties", density=0.5)
    for layer in SHAPES:
        difference = theirs[layer] - dense(ours, layer)
        assert difference.norm() > 0.5 * dense(ours, layer).norm()


def test_rotated_factors_are_the_same_expert():
    """A factor rotation leaves ΔW; every merge of ΔW keeps, the mean of factors does not."""
    experts = same_rank_experts()
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    turned = {
        layer: LoraLayer(swap @ factors.a, factors.b @ swap, factors.scale)
        for layer, factors in experts["hate"].layers.items()
    }
    other = experts | {"hate": LoraAdapter(turned)}
    for strategy in ("linear", "svd", "ties", "magnitude_prune", "dare_ties", "knots", "tsv"):
        left, right = (merge(strategy, some).adapter for some in (experts, other))
        for layer in SHAPES:
            torch.testing.assert_close(dense(left, layer), dense(right, layer))
    left, right = (merge("linear_factors", some).adapter for some in (experts, other))
    for layer in SHAPES:
        assert (dense(left, layer) - dense(right, layer)).norm() > 0.1 * dense(left, layer).norm()
