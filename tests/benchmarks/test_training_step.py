"""Both recipes of the benchmark train the same thing, and a difference would be noticed."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.training_step import TOLERANCE, Setting, Training, comparable, disagreement

SETTING = Setting("sd15", 64, "cpu", torch.float32, tiny=True)


@pytest.fixture(scope="module")
def losses() -> dict[str, list[float]]:
    recipes = {recipe: Training(recipe, SETTING) for recipe in ("project", "reference")}
    return {name: [training.step(n).loss for n in range(2)] for name, training in recipes.items()}


def test_recipes_compute_the_same_losses(losses):
    assert comparable(losses["project"], losses["reference"])
    assert losses["project"][0] != losses["project"][1]


def test_other_losses_do_not_count(losses):
    other = [loss * (1 + 2 * TOLERANCE) for loss in losses["project"]]
    assert disagreement(other, losses["reference"]) > TOLERANCE
    assert not comparable(other, losses["reference"])


def test_losses_that_cannot_differ_do_not_count():
    fresh = [math.log(2)] * 2
    assert not comparable(fresh, fresh)
