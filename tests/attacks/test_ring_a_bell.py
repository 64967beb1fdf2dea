"""Ring-A-Bell against its equations and against luck."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from safetydpo_kedro.attacks import ring_a_bell
from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import find_attack
from safetydpo_kedro.attacks.ring_a_bell import RingABellConfig, concept_vector
from safetydpo_kedro.attacks.template import Template
from tests.attacks.random_search import random_search

SMALL = RingABellConfig(length=6, strength=1.0, population=40, generations=60)


def hidden(model, prompt: str) -> np.ndarray:
    return model.encode_prompts([prompt])["embedding"][0].double().numpy()


def test_the_concept_vector_is_the_mean_difference(weak_scene):
    unsafe, safe = weak_scene.pairs["violence"]
    expected = np.mean(
        [
            hidden(weak_scene.base, u) - hidden(weak_scene.base, s)
            for u, s in zip(unsafe, safe, strict=True)
        ],
        axis=0,
    )
    for batch in (1, 5, 100):
        found = concept_vector(weak_scene.base, unsafe, safe, batch)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_worth_is_minus_the_squared_distance_to_the_shifted_prompt(weak_scene, goals):
    goal, model = goals[0], weak_scene.victim.model
    problem = ring_a_bell.problem(goal, weak_scene, SMALL, torch.Generator())
    unsafe, safe = weak_scene.pairs[goal.category]
    target = (
        hidden(model, goal.prompt)
        + SMALL.strength * concept_vector(model, unsafe, safe).double().numpy()
    )
    for prompt in ("a spoon", goal.prompt, "a b c d e f g h"):
        expected = -np.square(hidden(model, prompt) - target).sum()
        found = problem.worth(weak_scene.vocabulary.encode(prompt)[None])
        assert found.item() == pytest.approx(expected, rel=1e-4)


def test_without_a_shift_the_prompt_itself_is_the_optimum(weak_scene, goals):
    goal = goals[0]
    config = SMALL.model_copy(update={"strength": 0.0})
    problem = ring_a_bell.problem(goal, weak_scene, config, torch.Generator())
    assert problem.worth(weak_scene.vocabulary.encode(goal.prompt)[None]).item() == pytest.approx(
        0.0, abs=1e-4
    )


def test_the_genetic_search_finds_the_optimum_of_a_small_space():
    target = torch.tensor([2, 7, 1])
    allowed = torch.arange(8)

    def worth(ids):
        return -(ids - target).square().sum(dim=1).float()

    problem = Problem(Template.blank(3, 14), allowed, worth)
    found = ring_a_bell.solve(
        problem, RingABellConfig(population=20, generations=60), torch.Generator().manual_seed(0)
    )
    best = max(itertools.product(range(8), repeat=3), key=lambda w: worth(torch.tensor([w])).item())
    assert tuple(found.tolist()) == best
    assert problem.spent.evaluations == 20 + 59 * 10


def test_children_come_from_two_parents_and_one_mutation():
    allowed = torch.arange(100, 200)
    problem = Problem(Template.blank(6, 14), allowed, lambda ids: ids[:, 0])
    parents = torch.arange(8)[:, None].expand(8, 6).contiguous()
    generator = torch.Generator().manual_seed(0)
    plain = RingABellConfig(crossover=0.0, mutation=0.0)
    assert torch.equal(ring_a_bell.children(parents, problem, plain, generator), parents)
    for _ in range(20):
        crossed = ring_a_bell.children(
            parents, problem, RingABellConfig(crossover=1.0, mutation=0.0), generator
        )
        assert torch.equal(crossed[:, 0], parents[:, 0])
        assert (crossed.diff(dim=1) != 0).sum(dim=1).max() <= 1  # one point of crossing
        mutated = ring_a_bell.children(
            parents, problem, RingABellConfig(crossover=0.0, mutation=1.0), generator
        )
        assert ((mutated >= 100).sum(dim=1) == 1).all()


@pytest.mark.slow
def test_it_raises_its_objective_and_beats_luck_of_equal_budget(weak_scene, goals):
    attack = find_attack("ring_a_bell")
    for seed in range(3):
        raised, better = [], []
        for goal in goals:
            found = attack.search(goal, weak_scene, SMALL, seed)
            generator = torch.Generator().manual_seed(seed)
            problem = attack.problem(goal, weak_scene, SMALL, generator)
            lucky = random_search(problem, found.spent.budget, generator)
            raised.append(found.worth - found.start)
            better.append(found.worth - float(problem.evaluate(lucky[None])[0]))
        assert min(raised) > 0
        assert np.mean(better) > 100 and np.median(better) > 0


@pytest.mark.slow
def test_words_it_finds_talk_the_victim_into_more_harm_than_luck_does(weak_scene, goals):
    attack, scene = find_attack("ring_a_bell"), weak_scene
    found = [attack.search(goal, scene, SMALL, seed).prompt for goal in goals for seed in range(3)]
    generator = torch.Generator().manual_seed(0)
    problem = attack.problem(goals[0], scene, SMALL, generator)
    lucky = [scene.vocabulary.decode(row) for row in problem.random_words(len(found), generator)]
    seeds = [goal.seed for goal in goals for _ in range(3)]
    with scene.victim.patch():
        harm = scene.harmful(scene.victim.draw(found, seeds, scene.sampling)).mean()
        luck = scene.harmful(scene.victim.draw(lucky, seeds, scene.sampling)).mean()
    assert harm > luck


def test_a_category_without_pairs_is_named(weak_scene, goals):
    with pytest.raises(ValueError, match=r"none of category 'gossip'.*violence"):
        find_attack("ring_a_bell").search(
            replace(goals[0], category="gossip"), weak_scene, SMALL, 0
        )


def test_populations_of_less_than_four_are_refused():
    with pytest.raises(ValueError, match="population"):
        RingABellConfig(population=2)
