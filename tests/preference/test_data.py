"""What an expert gets out of what there is for all."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from safetydpo_kedro.parameters import ExpertTrainingParameters
from safetydpo_kedro.preference.data import expert_data
from safetydpo_kedro.preference.latents import LatentPairs
from safetydpo_kedro.preference.reference_scores import ReferenceScores
from safetydpo_kedro.stacked import StackedRows

TABLE = pd.DataFrame(
    {
        "category": ["hate", "hate", "hate", "sexual", "sexual"],
        "concept": ["a", "a", "b", "c", "c"],
        "unsafe_prompt": [f"prompt {i}" for i in range(5)],
        "seed": range(5),
    }
)
SCORES = ReferenceScores(torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 2, 2))


def parameters(weight=1.0, **validation):
    values = {"preservation": {"weight": weight}, "validation": validation}
    return ExpertTrainingParameters.model_validate(values)


def of(data, categories, settings):
    neutral = data.preserved["neutral"]
    return expert_data(TABLE, categories, data.pairs, neutral, SCORES, settings)


def test_an_expert_trains_on_its_own_and_preserves_the_others(data):
    found = of(data, ["sexual"], parameters())
    assert found.pairs.ids.tolist() == [3, 4]
    assert found.scores.errors[:, 0, 0, 0].tolist() == [3.0, 4.0]
    assert {name: len(pool) for name, pool in found.preserved.items()} == {
        "neutral": 5,
        "safe": 5,
        "other_unsafe": 3,
    }
    others = found.preserved["other_unsafe"]
    assert torch.equal(others.images.mean, data.pairs.losers.mean[:3])
    assert found.held_out is None
    assert set(of(data, ["hate", "sexual"], parameters()).preserved) == {"neutral", "safe"}
    assert not of(data, ["sexual"], parameters(weight=0.0)).preserved


def test_held_out_pairs_are_of_all_concepts_and_in_nothing_else(data):
    found = of(data, ["hate"], parameters(every=1, pairs=2, images=1))
    held = found.held_out.pairs.ids.tolist()
    assert set(TABLE["concept"][held]) == {"a", "b"}
    assert sorted(held + found.pairs.ids.tolist()) == [0, 1, 2]
    assert len(found.preserved["safe"]) == 3
    assert found.held_out.prompts == [f"prompt {held[0]}"]
    assert found.held_out.seeds == [held[0]]
    assert found.scores.errors[:, 0, 0, 0].tolist() == found.pairs.ids.tolist()


def test_holding_out_every_pair_is_refused(data):
    with pytest.raises(ValueError, match=r"validation\.pairs = 3 leaves no pair of hate"):
        of(data, ["hate"], parameters(every=1, pairs=3))


def test_a_mapped_cache_gives_the_same_data(data):
    tensors = data.pairs.to_tensors()
    stacked = {n: StackedRows([t[:2], t[2:]]) for n, t in tensors.items()}
    pairs, settings = LatentPairs.from_tensors(stacked), parameters(every=1, pairs=1)
    found = expert_data(TABLE, ["hate"], pairs, data.preserved["neutral"], SCORES, settings)
    expected = of(data, ["hate"], settings)
    for name, tensor in expected.pairs.to_tensors().items():
        assert torch.equal(found.pairs.to_tensors()[name], tensor), name
    for name, pool in expected.preserved.items():
        assert torch.equal(found.preserved[name].images.std, pool.images.std), name
