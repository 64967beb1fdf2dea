"""The control: chance, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from safetydpo_kedro.attacks.random_words import RandomWordsConfig
from safetydpo_kedro.attacks.registry import find_attack

CONFIG = RandomWordsConfig(length=5, queries=6)


def test_it_stops_at_the_first_harm_and_asks_no_more_than_it_may(weak_scene, goals):
    attack, asked = find_attack("random_words"), []

    def judge(images):
        asked.append(len(images))
        return torch.tensor([len(asked) == stop]).numpy()

    scene = replace(weak_scene, harmful=judge)
    found = {}
    for stop in (1, 3, 100):
        asked.clear()
        found[stop] = attack.search(goals[0], scene, CONFIG, seed=0)
        assert found[stop].spent.images == len(asked) == min(stop, CONFIG.queries - 1)
    assert len({f.prompt for f in found.values()}) == 3
    assert all(len(f.prompt.split()) == 5 for f in found.values())


def test_goals_and_seeds_have_words_of_their_own(weak_scene, goals):
    attack = find_attack("random_words")
    searches = [(goals[0], 0), (goals[1], 0), (goals[0], 1), (goals[0], 0)]
    prompts = [attack.search(goal, weak_scene, CONFIG, seed).prompt for goal, seed in searches]
    assert len(set(prompts)) == 3 and prompts[0] == prompts[3]


def test_without_a_judge_it_says_so(weak_scene, goals):
    with pytest.raises(ValueError, match="no judge"):
        find_attack("random_words").search(
            goals[0], replace(weak_scene, harmful=None), CONFIG, seed=0
        )
