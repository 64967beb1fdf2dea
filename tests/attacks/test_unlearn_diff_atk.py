"""The simplex of UnlearnDiffAtk, and the projection of P4D."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.attacks.p4d import nearest_words
from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import parse_attack
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.attacks.unlearn_diff_atk import (
    UnlearnDiffAtkConfig,
    one_hot_gradient,
    problem,
    project_to_simplex,
    solve,
)

numbers = st.floats(-5, 5, allow_nan=False)


@settings(max_examples=80, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8))
def test_the_projection_is_the_nearest_point_of_the_simplex(values):
    point = torch.tensor(values, dtype=torch.float64)
    projected = project_to_simplex(point)
    assert (projected >= 0).all() and abs(projected.sum().item() - 1) < 1e-9
    # Optimality: the step from the projection to the point ascends to no corner of the simplex.
    direction = point - projected
    assert (direction.max() - direction @ projected).item() < 1e-9


def linear_problem() -> tuple[Problem, torch.Tensor, torch.Tensor]:
    """Three places, each with a word of least loss."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(9, 4, generator=generator)
    weights = torch.randn(3, 4, generator=generator)
    linear = Problem(
        Template.blank(3, 14),
        torch.tensor([1, 3, 4, 6, 8]),
        worth=lambda ids: -(table[ids] * weights).sum(dim=(1, 2)),
        loss=lambda ids, embeddings, step: (embeddings * weights).sum(dim=(1, 2)),
        table=table,
    )
    return linear, table, weights


def test_the_gradient_of_a_choice_is_the_slope_of_its_embedding():
    linear, table, weights = linear_problem()
    found = one_hot_gradient(linear, torch.tensor([1, 3, 4]), step=0)
    torch.testing.assert_close(found, weights @ table[linear.allowed].T)


def test_a_linear_problem_is_solved():
    linear, table, weights = linear_problem()
    config = UnlearnDiffAtkConfig(timesteps=10, iterations=10, learning_rate=0.1)
    found = solve(linear, config, torch.Generator().manual_seed(0))
    best = (weights @ table[linear.allowed].T).argmin(dim=1)
    assert torch.equal(found, linear.allowed[best])


def test_the_nearest_word_is_that_of_the_largest_cosine():
    linear, table, _ = linear_problem()
    point = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)) * 7
    found = nearest_words(linear, point)
    for row, word in zip(point, found.tolist(), strict=True):
        cosines = {
            w: torch.cosine_similarity(row, table[w], dim=0).item() for w in linear.allowed.tolist()
        }
        assert word == max(cosines, key=cosines.get)


def test_each_timestep_is_stayed_at_and_noise_is_fresh(weak_scene, goals):
    scene, goal, seen = weak_scene, goals[0], []
    config = UnlearnDiffAtkConfig(timesteps=4, iterations=3, batch=2)
    found = problem(goal, scene, config, torch.Generator().manual_seed(0))
    inner, ids = scene.base.predict, scene.vocabulary.encode(goal.prompt)[None]

    def predict(noisy, timesteps, conditioning):
        seen.append((timesteps.tolist(), noisy))
        return inner(noisy, timesteps, conditioning)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(scene.base, "predict", predict)
        losses = [found.loss(ids, scene.table[ids], step).item() for step in range(12)]
        assert found.loss(ids, scene.table[ids], 5).item() == losses[5]
    stretches = [scene.base.train_timesteps * k // 8 for k in (1, 3, 5, 7)]
    assert [t for t, _ in seen[:12]] == [[t, t] for t in stretches for _ in range(3)]
    noisy = torch.cat([rows for _, rows in seen[:12]]).flatten(1)
    assert len(noisy.unique(dim=0)) == 24


def test_the_prompt_follows_the_free_words(weak_scene, goals):
    config = UnlearnDiffAtkConfig(places=3)
    template = problem(goals[0], weak_scene, config, torch.Generator()).template
    own = weak_scene.vocabulary.encode(goals[0].prompt)
    assert template.free.tolist() == [0, 1, 2]
    assert torch.equal(template.ids[3:], own[: len(template.ids) - 3])


def test_gradients_are_clipped_as_published():
    loud, table, weights = linear_problem()
    inner, slopes = loud.loss, weights @ table[loud.allowed].T
    # Clipped, one loud step weighs no more than a later one against it.
    sizes = [1e9, *[-1e3] * 7]
    loud.loss = lambda ids, embeddings, step: sizes[step] * inner(ids, embeddings, step)
    quiet = linear_problem()[0]
    quiet.table = torch.eye(9)  # so that the gradient of a choice is what is written here
    quiet.loss = lambda ids, embeddings, step: (
        embeddings[..., quiet.allowed] * slopes.sign() * sizes[step] / abs(sizes[step])
    ).sum(dim=(1, 2))
    points = []
    for linear in (loud, quiet):
        linear.worth = lambda ids: -(table[ids] * weights).sum(dim=(1, 2))
        config = UnlearnDiffAtkConfig(timesteps=1, iterations=8, learning_rate=0.02)
        linear.solved = lambda words: points.append(words)  # the words in the end, best or not
        solve(linear, config, torch.Generator().manual_seed(4))
    assert torch.equal(*points)
    assert torch.equal(points[0], loud.allowed[slopes.sign().argmax(dim=1)])


@pytest.mark.parametrize(
    ("values", "named"),
    [({"places": 0}, "places"), ({"timesteps": 0}, "timesteps"), ({"batch": 0}, "batch"),
     ({"learning_rate": -1}, "learning_rate"), ({"weight_decay": -1}, "weight_decay")],
)  # fmt: skip
def test_settings_out_of_range_are_named(values, named):
    with pytest.raises(ValueError, match=f"(?s)'unlearn_diff_atk'.*{named}"):
        parse_attack("unlearn_diff_atk", values)
