"""P4D's target, its placements and its search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from safetydpo_kedro.attacks import p4d
from safetydpo_kedro.attacks.p4d import P4dConfig, unprotected
from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import parse_attack
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.attacks.white_box import GoalImage

SMALL = P4dConfig(length=4, steps=3, batch=2, draws=4, judging_draws=5)


@pytest.fixture
def problem(weak_scene, goals):
    return p4d.problem(goals[0], weak_scene, SMALL, torch.Generator().manual_seed(0))


def test_the_target_is_what_the_unprotected_model_predicts(weak_scene, goals):
    scene, goal = weak_scene, goals[0]
    noised = GoalImage.of(goal, scene).noised(0, range(20))  # more than one batch
    found = unprotected(goal, scene, noised).target
    with torch.no_grad():
        conditioning = scene.base.encode_prompts([goal.prompt])
        for i in range(20):
            t = noised.timesteps[i : i + 1]
            expected = scene.base.predict(noised.noisy[i : i + 1], t, conditioning)
            torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-4, atol=1e-4)


def test_worth_is_minus_the_distance_of_victim_and_unprotected_model(weak_scene, goals, problem):
    scene, goal = weak_scene, goals[0]
    noised = GoalImage.of(goal, scene).judging(SMALL.judging_draws)

    def predictions(prompt):
        with torch.no_grad():
            conditioning = scene.base.encode_prompts([prompt] * SMALL.judging_draws)
            found = scene.base.predict(noised.noisy, noised.timesteps, conditioning)
        return found.double().numpy()

    wanted = predictions(goal.prompt)
    assert problem.worth(scene.vocabulary.encode(goal.prompt)[None]).item() == pytest.approx(
        0, abs=1e-6
    )  # no victim yet
    for prompt in (goal.prompt, "a green spoon"):
        ids = scene.vocabulary.encode(prompt)[None]
        with scene.victim.patch():
            expected = -np.square(predictions(prompt) - wanted).mean()
            assert problem.worth(ids).item() == pytest.approx(expected, rel=1e-3)
            assert problem.worth(ids).item() == problem.worth(ids).item()
            assert expected < -1e-3


def test_steps_take_the_draws_in_turn(weak_scene, problem):
    ids = weak_scene.vocabulary.encode("a green spoon on red")[None]
    embeddings = weak_scene.table[ids]
    with torch.no_grad():
        losses = [problem.loss(ids, embeddings, step).item() for step in range(4)]
    assert losses[0] == losses[2] and losses[1] == losses[3]  # four draws, two a step
    assert losses[0] != losses[1]


def test_placements_leave_free_what_the_paper_says(weak_scene, goals):
    scene, goal = weak_scene, goals[0]
    blank = p4d.problem(goal, scene, SMALL, torch.Generator()).template
    assert len(blank.ids) == len(blank) == 4
    between = SMALL.model_copy(update={"placement": "k", "every": 2})
    template = p4d.problem(goal, scene, between, torch.Generator()).template
    free = set(template.free.tolist())
    own = [token for i, token in enumerate(template.ids.tolist()) if i not in free]
    assert own == scene.vocabulary.encode(goal.prompt)[: len(own)].tolist()
    assert template.free.tolist() == list(range(0, len(template.ids), 3))


def quadratic_problem(solved=None) -> Problem:
    """Words are the better the nearer their embeddings are to a point of each place."""
    generator = torch.Generator().manual_seed(1)
    table = torch.nn.functional.normalize(torch.randn(12, 3, generator=generator), dim=1)
    aims = table[[5, 9, 2]] + 0.1 * torch.randn(3, 3, generator=generator)

    def loss(ids, embeddings, step):
        return (embeddings - aims).square().sum(dim=(1, 2))

    return Problem(
        Template.blank(3, 14),
        torch.arange(1, 11),
        worth=lambda ids: -loss(ids, table[ids], 0),
        loss=loss,
        succeeds=solved,
        table=table,
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_the_best_words_of_a_small_space(seed):
    problem = quadratic_problem()
    config = P4dConfig(steps=60, learning_rate=0.1)
    found = p4d.solve(problem, config, torch.Generator().manual_seed(seed))
    every = torch.tensor(list(itertools.product(range(1, 11), repeat=3)))
    assert torch.equal(found, every[problem.worth(every).argmax()])
    assert problem.spent.evaluations < 60  # prompts that stay are not judged again


def test_the_victim_is_looked_at_every_few_steps():
    problem = quadratic_problem(solved=lambda ids: False)
    p4d.solve(problem, P4dConfig(steps=21, check_every=5), torch.Generator().manual_seed(0))
    assert problem.spent.images == 5 and problem.spent.gradients == 21


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"placement": "m"}, "placement"),
        ({"every": 0}, "every"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"check_every": 0}, "check_every"),
    ],
)
def test_settings_out_of_range_are_named(settings, named):
    with pytest.raises(ValueError, match=f"(?s)'p4d'.*{named}"):
        parse_attack("p4d", settings)
