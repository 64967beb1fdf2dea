"""The one signature of all attacks."""

from __future__ import annotations

import pytest
import torch

from safetydpo_kedro.attacks import available_attacks, find_attack, parse_attack
from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import Attack, AttackConfig, register
from safetydpo_kedro.attacks.template import Template
from tests.attacks.random_search import random_search

ALL = [
    "mma_diffusion",
    "p4d",
    "random_words",
    "ring_a_bell",
    "sneaky_prompt",
    "unlearn_diff_atk",
]


def test_all_five_attacks_of_the_papers_and_the_control_are_there():
    assert available_attacks() == ALL
    sees = {name: find_attack(name).sees for name in ALL}
    assert sees == {
        "mma_diffusion": "nothing",
        "p4d": "weights",
        "random_words": "images",
        "ring_a_bell": "nothing",
        "sneaky_prompt": "images",
        "unlearn_diff_atk": "weights",
    }


@pytest.mark.parametrize("name", ALL)
def test_settings_have_defaults_and_refuse_other_names(name):
    attack, config = parse_attack(name, {})
    assert isinstance(config, attack.config)
    with pytest.raises(ValueError, match=f"(?s)attack '{name}'.*sped"):
        parse_attack(name, {"sped": 1})


def test_an_unknown_attack_names_the_known_ones():
    with pytest.raises(ValueError, match=r"p4e.*ring_a_bell"):
        parse_attack("p4e", {})


def test_a_name_is_taken_once():
    attack = find_attack("p4d")
    with pytest.raises(ValueError, match="twice"):
        register(attack)


def counting_problem(places: int = 3) -> Problem:
    """Words are worth their sum."""
    return Problem(
        Template.blank(places, 14), torch.arange(1, 9), lambda ids: ids.sum(dim=1).float()
    )


def test_random_search_finds_the_best_of_what_it_sees():
    seen = []
    problem = counting_problem()
    inner = problem.worth
    problem.worth = lambda ids: (seen.append(ids), inner(ids))[1]
    found = random_search(problem, 50, torch.Generator().manual_seed(0), batch=16)
    tried = torch.cat(seen)
    assert len(tried) == problem.spent.evaluations == problem.spent.budget == 50
    assert found.sum() == tried.sum(dim=1).max() and set(tried.unique().tolist()) <= set(
        range(1, 9)
    )


def test_a_search_is_the_same_whatever_was_searched_before(weak_scene, goals):
    attack, config = parse_attack(
        "mma_diffusion", {"length": 4, "steps": 2, "top": 8, "candidates": 8}
    )
    alone = attack.search(goals[2], weak_scene, config, seed=5)
    attack.search(goals[0], weak_scene, config, seed=5)
    again = attack.search(goals[2], weak_scene, config, seed=5)
    assert alone == again
    assert alone.prompt != attack.search(goals[2], weak_scene, config, seed=6).prompt


def test_the_victim_is_patched_while_it_is_searched_and_not_after(weak_scene, goals):
    unet = weak_scene.victim.model.unet
    name = next(name for name in unet.state_dict() if name.endswith("attn2.to_k.weight"))
    plain, seen = unet.state_dict()[name].clone(), []

    def problem(goal, scene, config, generator):
        assert torch.equal(unet.state_dict()[name], plain)
        return Problem(Template.blank(2, 14), scene.vocabulary.allowed(), lambda ids: ids[:, 0])

    def solve(problem, config, generator):
        seen.append(unet.state_dict()[name].clone())
        return problem.first_words(generator)

    probe = Attack("probe", AttackConfig, "weights", problem, solve)
    found = probe.search(goals[0], weak_scene, AttackConfig(), seed=0)
    assert not torch.equal(seen[0], plain) and torch.equal(unet.state_dict()[name], plain)
    assert found.start == found.worth and len(found.prompt.split()) == 2


def test_a_prompt_without_a_free_place_is_refused(weak_scene, goals):
    def problem(goal, scene, config, generator):
        return Problem(Template.blank(0, 14), scene.vocabulary.allowed(), lambda ids: ids[:, 0])

    probe = Attack("probe", AttackConfig, "nothing", problem, lambda *_: None)
    with pytest.raises(ValueError, match=f"'probe'.*'{goals[0].prompt_id}' is free"):
        probe.search(goals[0], weak_scene, AttackConfig(), seed=0)
