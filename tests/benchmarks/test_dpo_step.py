"""All recipes of the benchmark train the same thing, and a difference would be noticed."""

from __future__ import annotations

import math

import pytest

from benchmarks.dpo_step import TOLERANCE, Comparison, as_rows, comparable, disagreement, numbers
from benchmarks.recipes import RECIPES
from benchmarks.worker import Setting, Step, Totals, Training

SETTING = Setting("sd15", 64, pairs=2, rounds=1, tiny=True)


@pytest.fixture(scope="module")
def trainings() -> dict[str, Training]:
    return {recipe: Training(recipe, SETTING) for recipe in RECIPES}


@pytest.fixture(scope="module")
def losses(trainings) -> dict[str, list[float]]:
    return {name: [training.step(n).loss for n in range(3)] for name, training in trainings.items()}


@pytest.fixture(scope="module")
def totals(trainings, losses) -> dict[str, Totals]:
    return {name: training.totals() for name, training in trainings.items()}


@pytest.mark.parametrize("recipe", ["diffusers", "project", "project + scores"])
def test_recipes_compute_the_same_losses(losses, recipe):
    assert comparable(losses[recipe], losses["reference"])
    assert losses[recipe][0] != losses[recipe][1]


def test_other_losses_do_not_count(losses):
    other = [loss * (1 + 2 * TOLERANCE) for loss in losses["project"]]
    assert disagreement(other, losses["reference"]) > TOLERANCE
    assert not comparable(other, losses["reference"])


def test_losses_that_cannot_differ_do_not_count():
    fresh = [math.log(2)] * 2
    assert not comparable(fresh, fresh)


def test_cached_scores_spare_one_forward_of_the_base_model(totals):
    unet = {name: each.unet for name, each in totals.items()}
    assert unet["project"] == unet["diffusers"] == pytest.approx(unet["reference"], rel=0.01)
    # Of three parts: forward, backward without gradients of frozen weights, and the reference.
    assert 0.28 < 1 - unet["project + scores"] / unet["project"] < 0.36


def test_caches_spare_the_encoding(totals):
    encoding = {name: each.operations - each.unet for name, each in totals.items()}
    assert encoding["project"] == encoding["project + scores"] == 0
    assert encoding["reference"] == encoding["diffusers"] > 0


def test_numbers_are_per_pair():
    totals = Totals(peak=2**30, operations=6 * 10**12, unet=5 * 10**12)
    steps = [Step(2.0, 0.7), Step(4.0, 0.7), Step(2.0, 0.7)]
    assert numbers(SETTING, steps, totals) == ["1", "1.00", "3", "2.5"]


def comparison(losses: list[float]) -> Comparison:
    """Twice as fast as the reference recipe, in three quarters of its memory."""
    reference = [Step(2, 0.7), Step(8, 0.8), Step(2, 0.9)]
    steps = [Step(seconds, loss) for seconds, loss in zip((1, 1, 2), losses, strict=True)]
    return Comparison(steps, reference, Totals(3 * 2**30, 2, 2), Totals(4 * 2**30, 3, 2), 0.5)


def test_a_row_says_how_much_faster_unless_the_losses_are_others():
    found = {"project": comparison([0.7, 0.8, 0.9]), "diffusers": comparison([0.7, 0.8, 0.95])}
    losses = {name: each.losses for name, each in found.items()}
    table = {row[4]: row[5:9] for row in as_rows(SETTING, found, losses)}
    assert table["reference"] == ["1", "1", "1", ""]
    assert table["project"] == ["2.00", "1.50", "0.75", "0e+00"]
    assert table["diffusers"] == ["does not count", "1.50", "0.75", "6e-02"]
