"""One signature for all strategies, and errors that say what to do."""

from __future__ import annotations

import json
import weakref
from contextlib import contextmanager

import pytest
import torch

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging import (
    StrategyConfig,
    available_strategies,
    merge,
    parse_config,
    register,
    registry,
)
from safetydpo_kedro.merging.compress import stack
from safetydpo_kedro.merging.registry import layer_by_layer

from .small_experts import make_experts, record_profile


@contextmanager
def registered(name, function):
    """A strategy that exists for a moment."""
    register(name, StrategyConfig)(function)
    try:
        yield
    finally:
        del registry._STRATEGIES[name]


def test_names():
    names = {"cat", "co_merge", "dare_linear", "dare_ties", "iso_c", "knots", "linear"}
    names |= {"linear_factors", "magnitude_prune", "svd", "task_arithmetic", "ties", "tsv"}
    assert names <= set(available_strategies())


def test_metadata_names_the_recipe(experts):
    metadata = merge("linear", experts, {"strength": 0.5}).adapter.metadata
    assert metadata["merge_strategy"] == "linear"
    assert json.loads(metadata["merge_config"]) == {
        "strength": 0.5,
        "rank": None,
        "weights": None,
        "precision": "float64",
    }
    assert json.loads(metadata["merge_experts"]) == ["hate", "sexual", "violence"]


def test_configuration_errors(experts):
    with pytest.raises(ValueError, match="unknown merge strategy 'co_merg', expected one of"):
        merge("co_merg", experts)
    with pytest.raises(ValueError, match=r"(?s)'linear'.*density"):
        merge("linear", experts, {"density": 0.5})
    with pytest.raises(ValueError, match=r"(?s)'co_merge'.*granularity"):
        parse_config("co_merge", {"granularity": "column"})
    with pytest.raises(ValueError, match=r"(?s)'linear'.*rank"):
        parse_config("linear", {"rank": 0})
    config = parse_config("co_merge", {"strength": 1.5})
    assert parse_config("co_merge", config) is config


def test_a_strategy_computes_in_the_precision_and_is_consumed_layer_by_layer(experts):
    """A layer is finished before the next one is asked for."""
    events, previous = [], None

    def watch(experts, config):
        nonlocal previous
        for name, layers in layer_by_layer(experts, config):
            is_finished = previous is None or previous() is None
            events.append((name, {layer.a.dtype for layer in layers.values()}, is_finished))
            stacked = stack(list(layers.values()), [1.0] * len(layers))
            previous = weakref.ref(stacked)
            layer_of = [stacked]
            del stacked
            yield name, layer_of.pop()

    with registered("watch", watch):
        merge("watch", experts, {"precision": "float32", "strength": 0.5})
    float32 = {torch.float32}
    assert events == [("block.to_out.0", float32, True), ("block.to_q", float32, True)]


def test_profile_errors(experts):
    profile = record_profile(experts)
    with pytest.raises(ValueError, match="'co_merge' needs an activation profile"):
        merge("co_merge", experts)
    two = {name: experts[name] for name in ("hate", "sexual")}
    with pytest.raises(ValueError, match=r"recorded for experts .*'violence'.* not for"):
        merge("co_merge", two, profile=profile)
    other = make_experts({"hate": 4, "sexual": 3, "violence": 1})
    with pytest.raises(ValueError, match=r"layer 'block.to_out.0': .*'rank': 4.*'rank': 3"):
        merge("co_merge", other, profile=profile)


def test_expert_errors(experts):
    with pytest.raises(ValueError, match="no experts"):
        merge("linear", {})

    layers = experts["sexual"].layers
    layer = layers["block.to_q"]
    not_finite = {"block.to_q": LoraLayer(layer.a, layer.b * torch.nan)}
    spoilt = experts | {"sexual": LoraAdapter(layers | not_finite)}
    with pytest.raises(ValueError, match=r"expert 'sexual', layer 'block\.\S+': NaN"):
        merge("linear", spoilt)
    other = LoraAdapter({"block.to_q": LoraLayer(torch.ones(1, 5), torch.ones(6, 1))})
    with pytest.raises(ValueError, match=r"'violence', layer 'block.to_q': ΔW has shape \(6, 5\)"):
        merge("linear", experts | {"violence": other})


def test_a_name_registers_once():
    with pytest.raises(ValueError, match="'linear' is registered twice"):
        register("linear", StrategyConfig)(lambda experts, config: experts)
