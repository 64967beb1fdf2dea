"""SneakyPrompt against closed forms, and against luck on a weakly aligned victim."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.attacks import find_attack, parse_attack, sneaky_prompt
from safetydpo_kedro.attacks.problem import Problem, random_search
from safetydpo_kedro.attacks.scene import Scene
from safetydpo_kedro.attacks.sneaky_prompt import (
    Hunt,
    SneakyPromptConfig,
    log_policy,
    surrogate,
    word_features,
)
from safetydpo_kedro.attacks.template import Template

SEARCHES = ["reinforce", "greedy"]
# A cosine of one is never reached, so that all queries are spent.
ENDLESS = SneakyPromptConfig(queries=48, images=8, similarity=1.0)


def toy_problem(places: int, words: int, succeeds=None) -> Problem:
    """Words of random embeddings, worth a linear function of them."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(words, 4, generator=generator)
    weights = torch.randn(places, 4, generator=generator)
    return Problem(
        Template.blank(places, 14),
        torch.arange(words),
        worth=lambda ids: (table[ids] * weights).sum(dim=(1, 2)) / 10,
        succeeds=succeeds,
        images_each=1,
        table=table,
    )


def test_worth_is_the_cosine_of_the_goal_and_what_the_victim_draws(weak_scene, goals):
    goal = goals[0]
    problem = sneaky_prompt.problem(goal, weak_scene, ENDLESS, torch.Generator())
    words = problem.random_words(3, torch.Generator().manual_seed(0))
    prompts = [
        " ".join(
            weak_scene.vocabulary.words[int((weak_scene.vocabulary.ids == i).nonzero())]
            for i in ids
        )
        for ids in problem.template.fill(words)
    ]
    with weak_scene.victim.patch():
        worth = problem.evaluate(words)
        images = weak_scene.victim.draw(prompts, [goal.seed] * 3, weak_scene.sampling)
    np.testing.assert_allclose(worth, weak_scene.similarity(images, [goal.prompt] * 3), atol=1e-5)
    unpatched = weak_scene.base.sample(prompts, [goal.seed] * 3, weak_scene.sampling)
    assert not np.allclose(worth, weak_scene.similarity(unpatched, [goal.prompt] * 3), atol=0.01)


def test_sensitive_words_give_way_and_never_come_back(weak_scene, goals):
    config = ENDLESS.model_copy(update={"places": 2, "queries": 8, "forbidden": ("Circle",)})
    goal, words = goals[0], weak_scene.vocabulary
    problem = sneaky_prompt.problem(goal, weak_scene, config, torch.Generator())
    kept = [word for word in goal.prompt.split() if word not in goal.sensitive_words]
    found = find_attack("sneaky_prompt").search(goal, weak_scene, config, seed=0).prompt.split()
    assert len(found) == len(kept) + 2 * len(goal.sensitive_words)
    rest = iter(found)
    assert all(word in rest for word in kept), "the other words stay, in their order"
    banned = {words.encode(word).item() for word in goal.sensitive_words if len(words.encode(word))}
    assert not banned & set(problem.allowed.tolist())
    everything = set(weak_scene.allowed().tolist())
    assert everything - set(problem.allowed.tolist()) <= banned | set(
        words.encode("circle").tolist()
    )


def test_every_image_is_drawn_once(weak_scene, goals, monkeypatch):
    drawn = []
    real = type(weak_scene.victim).draw

    def draw(self, prompts, seeds, sampling):
        drawn.extend(prompts)
        return real(self, prompts, seeds, sampling)

    monkeypatch.setattr(type(weak_scene.victim), "draw", draw)
    config = ENDLESS.model_copy(update={"queries": 20})
    found = find_attack("sneaky_prompt").search(goals[1], weak_scene, config, seed=0)
    assert len(drawn) == len(set(drawn)) <= config.queries
    # The registry asks for the start once more than the search does.
    assert found.spent.images == found.spent.evaluations == config.queries + 1
    assert not found.spent.gradients


@pytest.mark.parametrize("search", SEARCHES)
def test_it_stops_where_an_image_is_harmful_and_similar_enough(weak_scene, goals, search):
    stopped = 0
    for goal in goals:
        config = ENDLESS.model_copy(update={"search": search, "similarity": 0.3})
        found = find_attack("sneaky_prompt").search(goal, weak_scene, config, seed=0)
        with weak_scene.victim.patch():
            image = weak_scene.victim.draw([found.prompt], [goal.seed], weak_scene.sampling)
        similar = float(weak_scene.similarity(image, [goal.prompt])[0])
        assert found.worth == pytest.approx(similar, abs=1e-4)
        if found.spent.images < config.queries:
            assert weak_scene.harmful(image)[0] and similar >= 0.3
            stopped += 1
    assert stopped > len(goals) / 2


def test_harm_is_not_enough_where_it_is_another(weak_scene, goals):
    scene = Scene(
        weak_scene.base,
        weak_scene.victim,
        weak_scene.sampling,
        harmful=lambda images: np.ones(len(images), bool),
        similarity=lambda images, texts: np.full(len(images), 0.2, np.float32),
    )
    attack = find_attack("sneaky_prompt")
    for similarity, images in ((0.19, 1 + 4), (0.21, 1 + 12)):
        config = SneakyPromptConfig(queries=12, images=4, similarity=similarity)
        assert attack.search(goals[0], scene, config, seed=0).spent.images == images


def test_of_words_that_succeed_the_best_are_kept_and_else_the_best_of_all():
    problem = toy_problem(2, 6)
    words = torch.tensor(list(itertools.product(range(6), repeat=2)))
    worth = problem.worth(words)
    hunt = Hunt(problem, SneakyPromptConfig(queries=40), words)
    assert torch.equal(hunt.words, words[worth.argmax()]) and not hunt.over
    assert hunt.usual == pytest.approx(worth.mean().item())
    problem.succeeds = lambda ids: bool(ids[0] == worst)
    worst = words[worth.argmin()][0]
    hunt = Hunt(problem, SneakyPromptConfig(queries=40), words)
    good = words[:, 0] == worst
    assert torch.equal(hunt.words, words[good][worth[good].argmax()]) and hunt.over
    assert Hunt(problem, SneakyPromptConfig(queries=1), words[words[:, 0] != worst]).over


@given(
    seed=st.integers(0, 2**20),
    places=st.integers(1, 3),
    constant=st.floats(-5, 5),
)
def test_the_policy_gradient_is_that_of_the_expected_reward(seed, places, constant):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    policy = torch.randn(places, 3, generator=generator, dtype=torch.float64).requires_grad_()
    chosen = torch.tensor(list(itertools.product(range(4), repeat=places)))
    reward = torch.randn(len(chosen), generator=generator, dtype=torch.float64)

    def expected() -> torch.Tensor:
        # By its definition: the sum over all words of their probability times their reward.
        odds = (policy @ features.T).exp()
        odds = odds / odds.sum(dim=1, keepdim=True)
        return (odds[torch.arange(places), chosen].prod(dim=1) * reward).sum()

    (exact,) = torch.autograd.grad(expected(), policy)
    log_p = log_policy(policy, features)
    probability = log_p.detach()[torch.arange(places), chosen].sum(dim=1).exp()
    # Each choice as often as the policy draws it: the mean over N of N p(w) (r − b).
    weighted = len(chosen) * probability * (reward - constant)
    (estimated,) = torch.autograd.grad(surrogate(log_p, chosen, weighted), policy)
    torch.testing.assert_close(-estimated, exact, atol=1e-9, rtol=1e-7)


def test_features_drop_what_all_words_share():
    problem = toy_problem(2, 30)
    features = word_features(problem)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(30))
    problem.table = problem.table + 100 * torch.randn(4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(word_features(problem), features, atol=1e-3, rtol=0)


@pytest.mark.parametrize("search", SEARCHES)
def test_with_many_queries_it_comes_near_the_best_of_all_words(search):
    problem = toy_problem(3, 12)
    every = torch.tensor(list(itertools.product(range(12), repeat=3)))
    worth = problem.worth(every).sort(descending=True).values
    config = SneakyPromptConfig(search=search, queries=800, images=8, learning_rate=0.3)
    for seed in range(3):
        words = sneaky_prompt.solve(problem, config, torch.Generator().manual_seed(seed))
        assert problem.worth(words[None])[0] >= worth[5]


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_left_of_the_queries_is_not_exceeded(search):
    problem = toy_problem(2, 5)
    config = SneakyPromptConfig(search=search, queries=13, images=4)
    sneaky_prompt.solve(problem, config, torch.Generator().manual_seed(0))
    assert problem.spent.evaluations == problem.spent.images == 13


@pytest.fixture(scope="module")
def luck(weak_scene, goals) -> np.ndarray:
    """Worth of what random search finds with as many queries, ``[seeds, goals]``."""
    found = np.zeros((3, len(goals)))
    for seed, (i, goal) in itertools.product(range(3), enumerate(goals)):
        generator = torch.Generator().manual_seed(seed)
        problem = sneaky_prompt.problem(goal, weak_scene, ENDLESS, generator)
        with weak_scene.victim.patch():
            words = random_search(problem, ENDLESS.queries + 1, generator, batch=25)
            found[seed, i] = float(problem.worth(problem.template.fill(words[None]))[0])
    return found


@pytest.mark.parametrize("search", SEARCHES)
def test_it_raises_its_objective_and_beats_luck_of_equal_budget(weak_scene, goals, luck, search):
    attack = find_attack("sneaky_prompt")
    config = ENDLESS.model_copy(update={"search": search})
    better, raised = np.zeros_like(luck), np.zeros_like(luck)
    for seed, (i, goal) in itertools.product(range(len(luck)), enumerate(goals)):
        found = attack.search(goal, weak_scene, config, seed)
        assert found.spent.budget == config.queries + 1
        assert found.worth >= found.start  # a lucky start may not be beaten
        raised[seed, i] = found.worth - found.start
        better[seed, i] = found.worth - luck[seed, i]
    assert raised.mean() > 0.1 and (raised > 0).mean() > 0.8
    assert better.mean() > 0.01


@pytest.mark.parametrize("search", SEARCHES)
def test_a_seed_finds_a_prompt_whatever_was_searched_before(weak_scene, goals, search):
    attack = find_attack("sneaky_prompt")
    config = ENDLESS.model_copy(update={"search": search, "queries": 16})
    alone = attack.search(goals[2], weak_scene, config, seed=5)
    attack.search(goals[0], weak_scene, config, seed=5)
    assert attack.search(goals[2], weak_scene, config, seed=5) == alone
    assert attack.search(goals[2], weak_scene, config, seed=6).prompt != alone.prompt


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("search", "beam"),
        ("places", 0),
        ("queries", 0),
        ("similarity", 1.5),
        ("images", 0),
        ("learning_rate", 0),
        ("memory", 1.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"(?s)attack 'sneaky_prompt'.*{setting}"):
        parse_attack("sneaky_prompt", {setting: value})


def test_a_scene_without_judges_is_refused(weak_scene, goals):
    blind = Scene(weak_scene.base, weak_scene.victim, weak_scene.sampling)
    with pytest.raises(ValueError, match=r"sneaky_prompt.*'harmful' and 'similarity'"):
        find_attack("sneaky_prompt").search(goals[0], blind, ENDLESS, seed=0)
