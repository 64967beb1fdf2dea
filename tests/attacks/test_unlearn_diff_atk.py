"""The simplex of UnlearnDiffAtk, and the projection of P4D."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safetydpo_kedro.attacks.p4d import nearest_words
from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.attacks.unlearn_diff_atk import (
    UnlearnDiffAtkConfig,
    one_hot_gradient,
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
    problem = Problem(
        Template.blank(3, 14),
        torch.tensor([1, 3, 4, 6, 8]),
        worth=lambda ids: -(table[ids] * weights).sum(dim=(1, 2)),
        loss=lambda ids, embeddings, step: (embeddings * weights).sum(dim=(1, 2)),
        table=table,
    )
    return problem, table, weights


def test_the_gradient_of_a_choice_is_the_slope_of_its_embedding():
    problem, table, weights = linear_problem()
    found = one_hot_gradient(problem, torch.tensor([1, 3, 4]), step=0)
    torch.testing.assert_close(found, weights @ table[problem.allowed].T)


def test_a_linear_problem_is_solved():
    problem, table, weights = linear_problem()
    config = UnlearnDiffAtkConfig(timesteps=10, iterations=10, learning_rate=0.1)
    found = solve(problem, config, torch.Generator().manual_seed(0))
    best = (weights @ table[problem.allowed].T).argmin(dim=1)
    assert torch.equal(found, problem.allowed[best])


def test_the_nearest_word_is_that_of_the_largest_cosine():
    problem, table, _ = linear_problem()
    point = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)) * 7
    found = nearest_words(problem, point)
    for row, word in zip(point, found.tolist(), strict=True):
        cosines = {
            w: torch.cosine_similarity(row, table[w], dim=0).item()
            for w in problem.allowed.tolist()
        }
        assert word == max(cosines, key=cosines.get)
