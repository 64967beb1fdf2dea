"""SneakyPrompt against closed forms, and against luck on a weakly aligned victim."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.attacks import find_attack, parse_attack, sneaky_prompt
from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.attacks.sneaky_prompt import (
    Hunt,
    RunningMean,
    SneakyPromptConfig,
    draw_words,
    log_policy,
    surrogate,
    word_features,
)
from safetydpo_kedro.attacks.template import Template
from tests.attacks.random_search import random_search

SEARCHES = ["reinforce", "greedy"]
# A cosine of one is never reached, so that all queries are spent.
ENDLESS = SneakyPromptConfig(queries=60, images=8, similarity=1.0)
WHOLE = ENDLESS.model_copy(update={"places": 1})


@pytest.fixture(scope="module")
def quick_scene(weak_scene) -> Scene:
    """The weakly aligned victim with fewer denoising steps: many images are looked at here."""
    sampling = weak_scene.sampling.model_copy(update={"steps": 4})
    return replace(weak_scene, sampling=sampling)


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


def test_worth_is_the_cosine_of_the_goal_and_what_the_victim_draws(quick_scene, goals):
    goal = goals[0]
    problem = sneaky_prompt.problem(goal, quick_scene, ENDLESS, torch.Generator())
    words = problem.random_words(3, torch.Generator().manual_seed(0))
    prompts = [
        " ".join(
            quick_scene.vocabulary.words[int((quick_scene.vocabulary.ids == i).nonzero())]
            for i in ids
        )
        for ids in problem.template.fill(words)
    ]
    with quick_scene.victim.patch():
        worth = problem.evaluate(words)
        images = quick_scene.victim.draw(prompts, [goal.seed] * 3, quick_scene.sampling)
    np.testing.assert_allclose(worth, quick_scene.similarity(images, [goal.prompt] * 3), atol=1e-5)
    unpatched = quick_scene.base.sample(prompts, [goal.seed] * 3, quick_scene.sampling)
    assert not np.allclose(worth, quick_scene.similarity(unpatched, [goal.prompt] * 3), atol=0.01)


def test_sensitive_words_give_way_and_never_come_back(quick_scene, goals):
    config = ENDLESS.model_copy(update={"places": 2, "queries": 8, "forbidden": ("Circle",)})
    goal, words = goals[0], quick_scene.vocabulary
    problem = sneaky_prompt.problem(goal, quick_scene, config, torch.Generator())
    kept = [word for word in goal.prompt.split() if word not in goal.sensitive_words]
    found = find_attack("sneaky_prompt").search(goal, quick_scene, config, seed=0).prompt.split()
    assert len(found) == len(kept) + 2 * len(goal.sensitive_words)
    rest = iter(found)
    assert all(word in rest for word in kept), "the other words stay, in their order"
    banned = {words.encode(word).item() for word in goal.sensitive_words if len(words.encode(word))}
    assert not banned & set(problem.allowed.tolist())
    everything = set(quick_scene.allowed().tolist())
    left_out = everything - set(problem.allowed.tolist())
    assert left_out <= banned | set(words.encode("circle").tolist())


def test_every_image_is_drawn_once(quick_scene, goals, monkeypatch):
    drawn = []
    real = type(quick_scene.victim).draw

    def draw(self, prompts, seeds, sampling):
        drawn.extend(prompts)
        return real(self, prompts, seeds, sampling)

    monkeypatch.setattr(type(quick_scene.victim), "draw", draw)
    config = ENDLESS.model_copy(update={"queries": 20})
    found = find_attack("sneaky_prompt").search(goals[1], quick_scene, config, seed=0)
    assert len(drawn) == len(set(drawn)) <= config.queries
    # The registry asks for the start once more than the search does.
    assert found.spent.images == found.spent.evaluations == config.queries + 1
    assert not found.spent.gradients


@pytest.mark.parametrize("search", SEARCHES)
def test_it_stops_where_an_image_is_harmful_and_similar_enough(quick_scene, goals, search):
    stopped = 0
    for goal in goals[:3]:
        config = ENDLESS.model_copy(update={"search": search, "similarity": 0.3})
        found = find_attack("sneaky_prompt").search(goal, quick_scene, config, seed=0)
        with quick_scene.victim.patch():
            image = quick_scene.victim.draw([found.prompt], [goal.seed], quick_scene.sampling)
        similar = float(quick_scene.similarity(image, [goal.prompt])[0])
        assert found.worth == pytest.approx(similar, abs=1e-4)
        if found.spent.images < config.queries:
            assert quick_scene.harmful(image)[0] and similar >= 0.3
            stopped += 1
    assert stopped >= 2


def test_harm_is_not_enough_where_it_is_another(quick_scene, goals):
    scene = Scene(
        quick_scene.base,
        quick_scene.victim,
        quick_scene.sampling,
        harmful=lambda images: np.ones(len(images), bool),
        similarity=lambda images, texts: np.full(len(images), 0.2, np.float32),
    )
    attack = find_attack("sneaky_prompt")
    for similarity, images in ((0.19, 1 + 1), (0.21, 1 + 12)):
        config = SneakyPromptConfig(queries=12, images=4, similarity=similarity)
        assert attack.search(goals[0], scene, config, seed=0).spent.images == images


def test_of_all_words_asked_for_the_best_are_kept():
    problem = toy_problem(2, 6)
    words = torch.tensor(list(itertools.product(range(6), repeat=2)))
    worth = problem.worth(words)
    hunt = Hunt(problem, SneakyPromptConfig(queries=40), words[0])
    torch.testing.assert_close(hunt.ask(words), worth)
    assert torch.equal(hunt.words, words[worth.argmax()]) and hunt.worth == worth.max()
    assert not hunt.over
    assert len(hunt.ask(words)) == 40 - 37 and hunt.over


def test_words_that_succeed_end_the_search_though_others_are_worth_more():
    problem = toy_problem(2, 6)
    words = torch.tensor(list(itertools.product(range(6), repeat=2)))
    worth = problem.worth(words)
    good = words[:, 0] == words[worth.argmin()][0]
    problem.succeeds = lambda ids: bool(ids[0] == words[good][0, 0])
    hunt = Hunt(problem, SneakyPromptConfig(queries=50), words[worth.argmax()])
    assert not hunt.over
    hunt.ask(words)
    assert hunt.over and torch.equal(hunt.words, words[good][worth[good].argmax()])


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
    # Each choice as often as the policy draws it.
    weighted = probability * (reward - constant)
    (estimated,) = torch.autograd.grad(surrogate(log_p, chosen, weighted), policy)
    torch.testing.assert_close(-estimated, exact, atol=1e-9, rtol=1e-7)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12), st.floats(0, 0.99))
def test_a_running_mean_weighs_values_by_their_age(values, memory):
    running = RunningMean(memory)
    for value in values:
        last = running.update(torch.tensor(value))
    weights = memory ** np.arange(len(values))[::-1].astype(float)
    assert last.item() == pytest.approx(np.average(values, weights=weights), abs=1e-3)
    assert running.count == len(values)


def test_words_of_an_update_differ_and_are_drawn_as_the_policy_has_it():
    odds = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.1, 0.1, 0.1, 0.7]])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_words(odds.log(), 2, generator) for _ in range(4000)])
    assert (drawn[:, 0] != drawn[:, 1]).all()
    for place in range(2):
        # The first of two without replacement has the policy's own odds.
        share = drawn[:, 0, place].bincount(minlength=4) / 4000
        torch.testing.assert_close(share, odds[place], atol=0.03, rtol=0)
    certain = torch.tensor([[0.0, -1e4, -1e4]])
    assert draw_words(certain, 3, generator).T.sort().values.tolist() == [[0, 1, 2]]
    assert draw_words(certain, 5, generator).shape == (5, 1)


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
    config = SneakyPromptConfig(search=search, queries=800, images=8)
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
def whole(goals) -> list[Goal]:
    """Goals without a counterpart, all words of which give way: luck has little chance."""
    return [replace(goal, safe_prompt=None) for goal in goals[:4]]


@pytest.fixture(scope="module")
def luck(quick_scene, whole) -> np.ndarray:
    """Worth of what random search finds with as many queries, ``[seeds, goals]``."""
    found = np.zeros((3, len(whole)))
    for seed, (i, goal) in itertools.product(range(3), enumerate(whole)):
        generator = torch.Generator().manual_seed(seed)
        problem = sneaky_prompt.problem(goal, quick_scene, WHOLE, generator)
        with quick_scene.victim.patch():
            words = random_search(problem, WHOLE.queries + 1, generator, batch=32)
            found[seed, i] = float(problem.worth(problem.template.fill(words[None]))[0])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
def test_it_raises_its_objective_and_beats_luck_of_equal_budget(quick_scene, whole, luck, search):
    attack = find_attack("sneaky_prompt")
    config = WHOLE.model_copy(update={"search": search})
    better, raised = np.zeros_like(luck), np.zeros_like(luck)
    for seed, (i, goal) in itertools.product(range(len(luck)), enumerate(whole)):
        found = attack.search(goal, quick_scene, config, seed)
        assert found.spent.budget == config.queries + 1
        raised[seed, i] = found.worth - found.start
        better[seed, i] = found.worth - luck[seed, i]
    assert raised.min() > 0
    assert better.mean() > 0.03 and (better.mean(axis=1) > 0).sum() >= 2


@pytest.mark.parametrize("search", SEARCHES)
def test_a_seed_finds_a_prompt_whatever_was_searched_before(quick_scene, goals, search):
    attack = find_attack("sneaky_prompt")
    config = ENDLESS.model_copy(update={"search": search, "queries": 16})
    alone = attack.search(goals[2], quick_scene, config, seed=5)
    attack.search(goals[0], quick_scene, config, seed=5)
    assert attack.search(goals[2], quick_scene, config, seed=5) == alone
    assert attack.search(goals[2], quick_scene, config, seed=6).prompt != alone.prompt


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


def test_a_scene_without_judges_is_refused(quick_scene, goals):
    blind = Scene(quick_scene.base, quick_scene.victim, quick_scene.sampling)
    with pytest.raises(ValueError, match=r"sneaky_prompt.*'harmful' and 'similarity'"):
        find_attack("sneaky_prompt").search(goals[0], blind, ENDLESS, seed=0)
