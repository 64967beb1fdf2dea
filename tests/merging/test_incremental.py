"""An expert joins a merge, which stays as it is."""

from __future__ import annotations

import json

import pytest
import torch

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.merging import merge
from safetydpo_kedro.merging.fitting import FittingConfig
from safetydpo_kedro.merging.incremental import extend_merge
from safetydpo_kedro.preference.latents import CachedPrompts

from ..worlds import prompt_pairs, random_cache, tiny_expert, tiny_pipeline


@pytest.fixture(scope="module")
def parts():
    model = diffusion_model(tiny_pipeline())
    experts = {name: tiny_expert(model.unet, i) for i, name in enumerate(("hate", "sexual"))}
    existing = merge("task_arithmetic", experts).adapter
    added = LoraAdapter(tiny_expert(model.unet, 7).layers, {"categories": '["violence"]'})
    pairs = prompt_pairs(per_category=2)
    cache, categories = random_cache(model, pairs), pairs["category"].tolist()
    rest = {
        "cached": CachedPrompts(cache, categories, cache.safe_side(slice(0, 3))),
        "config": FittingConfig(steps=4, batch_size=6),
        "inputs": 12,
    }
    return model, existing, added, rest


def test_only_the_added_part_is_weighted(parts):
    model, existing, added, rest = parts
    extended, history = extend_merge(model, existing, added, **rest)
    assert len(history) == 4
    assert json.loads(extended.metadata["merge_experts"]) == ["hate", "sexual", "violence"]
    for name, layer in extended.layers.items():
        before, new = existing.layers[name], added.layers[name]
        assert layer.rank == before.rank + new.rank
        # The first factors are the new expert's, by name; the others those of the merge.
        assert torch.equal(layer.a[new.rank :], before.a)
        assert torch.equal(layer.b[:, new.rank :], before.b * before.scale)
        assert not torch.equal(layer.a[: new.rank], new.a)


def test_an_extended_merge_can_be_extended_and_a_category_joins_once(parts):
    model, existing, added, rest = parts
    extended, _ = extend_merge(model, existing, added, **rest)
    with pytest.raises(ValueError, match=r"expert for \['violence'\]: an expert is added once"):
        extend_merge(model, extended, added, **rest)
    another = LoraAdapter(added.layers, {"categories": '["shocking"]'})
    twice, _ = extend_merge(model, extended, another, **rest)
    assert "shocking" in json.loads(twice.metadata["merge_experts"])


def test_adapters_without_names_are_refused(parts):
    model, existing, added, rest = parts
    with pytest.raises(ValueError, match="metadata has no 'merge_experts'"):
        extend_merge(model, LoraAdapter(existing.layers), added, **rest)
    with pytest.raises(ValueError, match="metadata has no 'categories'"):
        extend_merge(model, existing, LoraAdapter(added.layers), **rest)
