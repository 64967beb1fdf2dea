"""The text attack of MMA-Diffusion against its equations and against luck."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from benchmarks.architectures import ARCHITECTURES, random_pipeline
from safetydpo_kedro.attacks import mma_diffusion
from safetydpo_kedro.attacks.mma_diffusion import (
    MmaDiffusionConfig,
    replacements,
    steepest_words,
)
from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import find_attack
from safetydpo_kedro.attacks.scene import Goal, Scene, Victim
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.diffusion.registry import diffusion_model
from tests.attacks.random_search import random_search

SMALL = MmaDiffusionConfig(length=6, steps=12, top=32, candidates=48)


def summary(model, words, prompt: str) -> np.ndarray:
    ids = words.encode(prompt)[None]
    with torch.no_grad():
        return model.summary(model.encode_tokens(ids), ids.shape[1])[0].double().numpy()


def test_worth_is_the_cosine_of_the_summaries(weak_scene, goals):
    problem = mma_diffusion.problem(goals[0], weak_scene, SMALL, torch.Generator())
    model, words = weak_scene.victim.model, weak_scene.vocabulary
    target = summary(model, words, goals[0].prompt)
    for prompt in (goals[0].prompt, "a spoon", "green green green"):
        other = summary(model, words, prompt)
        cosine = other @ target / np.linalg.norm(other) / np.linalg.norm(target)
        assert problem.worth(words.encode(prompt)[None]).item() == pytest.approx(cosine, abs=1e-5)


def test_sensitive_words_never_come_back(weak_scene, goals):
    attack = find_attack("mma_diffusion")
    config = SMALL.model_copy(update={"forbidden": ("background",)})
    for goal in goals:
        found = attack.search(goal, weak_scene, config, 0).prompt.split()
        assert not {*goal.sensitive_words, "background"} & set(found)


def test_the_steepest_words_are_those_of_the_linear_model():
    table = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    allowed = torch.tensor([1, 3, 4, 6, 8])
    # A linear loss, of which the first order is all there is.
    problem = Problem(
        Template.blank(3, 14),
        allowed,
        worth=lambda ids: -(table[ids] * weights).sum(dim=(1, 2)),
        loss=lambda ids, embeddings, step: (embeddings * weights).sum(dim=(1, 2)),
        table=table,
    )
    found = steepest_words(problem, torch.tensor([1, 1, 1]), top=2, step=0)
    for place, choices in enumerate(found.tolist()):
        losses = {word: (table[word] @ weights[place]).item() for word in allowed.tolist()}
        assert choices == sorted(losses, key=losses.get)[:2]
    solved = mma_diffusion.solve(
        problem, MmaDiffusionConfig(steps=8, top=5, candidates=32), torch.Generator().manual_seed(0)
    )
    best = max(
        itertools.product(allowed.tolist(), repeat=3),
        key=lambda words: problem.worth(torch.tensor([words])).item(),
    )
    assert tuple(solved.tolist()) == best


def test_every_candidate_replaces_one_word_by_a_steep_one_of_its_place():
    words = torch.tensor([1, 2, 3])
    steepest = torch.tensor([[10, 11], [20, 21], [30, 31]])
    tried = replacements(words, steepest, 12, torch.Generator().manual_seed(0))
    changed = tried != words
    assert (changed.sum(dim=1) == 1).all() and changed.sum(dim=0).tolist() == [4, 4, 4]
    assert all(tried[i, place] in steepest[place] for i, place in changed.nonzero().tolist())


@pytest.mark.slow
def test_it_raises_its_objective_and_beats_luck_of_equal_budget(weak_scene, goals):
    attack = find_attack("mma_diffusion")
    for seed in range(3):
        raised, better = [], []
        for goal in goals:
            found = attack.search(goal, weak_scene, SMALL, seed)
            assert found.spent.gradients == SMALL.steps and not found.spent.images
            generator = torch.Generator().manual_seed(seed)
            problem = attack.problem(goal, weak_scene, SMALL, generator)
            lucky = random_search(problem, found.spent.budget, generator)
            raised.append(found.worth - found.start)
            better.append(found.worth - float(problem.evaluate(lucky[None])[0]))
        assert min(raised) > 0
        assert np.mean(better) > 0.02 and np.median(better) > 0


@pytest.mark.parametrize("family", list(ARCHITECTURES))
def test_every_family_can_be_searched(family):
    model = diffusion_model(random_pipeline(family, tiny=True))
    scene = Scene(model, Victim(model), None, None, None)
    goal = Goal("1", "knife on a blue background", 0, safe_prompt="spoon on a blue background")
    attack = find_attack("mma_diffusion")
    found = attack.search(goal, scene, SMALL, seed=0)
    problem = attack.problem(goal, scene, SMALL, torch.Generator())
    lucky = random_search(problem, found.spent.budget, torch.Generator().manual_seed(0))
    assert found.worth > max(found.start, float(problem.evaluate(lucky[None])[0]))
    assert "knife" not in found.prompt
