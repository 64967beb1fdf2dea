"""Recipes are measured once, on the pairs they ask for, and tables say what was measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from benchmarks.recipe_plans import SWEEPS, UNTRAINED, PairChoice, Recipe, Settings
from benchmarks.recipe_sweep import (
    HEADER,
    Worker,
    append_result,
    distinct,
    read_results,
    recipe_row,
    recipe_tasks,
    run_missing,
    tables,
)
from benchmarks.recipe_world import MEASURES, Judge, World, load_pool, make_world
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.metrics.clip import ClipModel
from safetydpo_kedro.parameters import SamplingParameters, SplitParameters
from safetydpo_kedro.pictograms.checker import WorldChecker
from safetydpo_kedro.preference.latents import encode_preserved
from safetydpo_kedro.prompts.split import split_prompts

from ..worlds import ROOT, base_parameters, neutral_prompts, prompt_pairs, tiny_pipeline

SHIPPED = ROOT / "data/01_raw"
SAMPLING = SamplingParameters(steps=1, guidance_scale=1.0, batch_size=64)
SPLIT = SplitParameters(test_share=0.34, train_per_concept=6, test_per_concept=2, seed=12)
STANDARD = {
    "lora": {"rank": 2, "target_modules": ["to_k"]},
    "beta": 50.0,
    "redirection_weight": 1.0,
    "preservation": {"weight": 1.0, "rows": 4, "other_unsafe_share": 0.3},
    "steps": 2,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "noise": {"draws": 2},
    "pairs": {"per_concept": 6},
}
STANDARDS = {"hate": STANDARD}


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pool") / "pool.safetensors"


@pytest.fixture(scope="module")
def world(pool) -> World:
    model = diffusion_model(tiny_pipeline())
    neutral = neutral_prompts()
    images = model.sample(neutral["prompt"].tolist(), neutral["seed"].tolist(), SAMPLING)
    judge = Judge(
        ClipModel.from_directory(SHIPPED / "judge_clip"),
        load_file(SHIPPED / "q16_prompts.safetensors")["prompts"],
        WorldChecker(str(SHIPPED / "pictogram_classifier.safetensors")),
    )
    preserved = encode_preserved(model, images, neutral["prompt"].tolist(), batch_size=4)
    return make_world(model, judge, SAMPLING, prompt_pairs(72), SPLIT, neutral, preserved, pool)


def settings(seed: int = 3, **overrides) -> Settings:
    return Settings.of(STANDARD, overrides, seed)


def run(world: World, recipes: list[Recipe], path: Path) -> int:
    tasks = [task for r in recipes for task in recipe_tasks(r, STANDARDS, world.identity)]
    return run_missing(tasks, path, ThreadPoolExecutor(1, "worker", Worker.begin, (lambda: world,)))


def test_what_was_measured_is_not_measured_again(world, tmp_path):
    path = tmp_path / "build/results.csv"
    first, other = Recipe("first", {"beta": 5.0}), Recipe("other", {"beta": 9.0})
    assert run(world, [first], path) == 1
    kept = path.read_text()
    same = Recipe("first under another name", {"beta": 5.0})
    assert run(world, [same, first, other, other], path) == 1
    assert path.read_text().startswith(kept)
    results = read_results(path)
    assert list(results["recipe"]) == ["first", "other"]
    assert results[list(MEASURES)].stack().between(0, 1).all()
    [(name, rows)] = tables(
        {"sweep": [same, Recipe("new", {"beta": 1.0})]}, STANDARDS, world.identity, results
    )
    assert name == "sweep"
    assert [row[:2] for row in rows] == [["first under another name", "1"], ["new", "0"]]
    assert {len(row) for row in rows} == {len(HEADER.split("|"))}
    assert rows[0][2] == f"{results['ip'][0]:.2f}"


def test_results_belong_to_their_world_and_settings(world):
    def key(recipe: Recipe, identity: str) -> str:
        return recipe_tasks(recipe, STANDARDS, identity)[0].key

    keys = {
        key(Recipe("a"), "one"),
        key(Recipe("a"), "two"),
        key(Recipe("a", seeds=(22,)), "one"),
        key(Recipe("a", {"noise.draws": None}), "one"),
        key(Recipe("a", {"pairs.names": 1}), "one"),
    }
    assert len(keys) == 5
    assert key(Recipe("b", {"beta": 50.0}), "one") in keys
    tasks = recipe_tasks(Recipe("a", seeds=(1, 2)), STANDARDS, "one")
    assert distinct([*tasks, *tasks]) == tasks


def test_row_is_the_mean_over_experts_and_the_spread_over_seeds(tmp_path):
    standards = {"hate": STANDARD, "sexual": STANDARD}
    recipe = Recipe("r", seeds=(1, 2, 3))
    tasks = recipe_tasks(recipe, standards, "w")
    ip = {
        (1, "hate"): 0.1,
        (1, "sexual"): 0.3,
        (2, "hate"): 0.2,
        (2, "sexual"): 0.6,
        (3, "hate"): 0.9,
    }  # seed 3 lacks an expert, and does not count
    for task in tasks:
        if (task.seed, task.expert) in ip:
            shares = dict.fromkeys(MEASURES, 1.0) | {"ip": ip[task.seed, task.expert]}
            row = {"key": task.key, "recipe": "r", "expert": task.expert, "seed": task.seed}
            append_result(tmp_path / "r.csv", {**row, "seconds": 10.0, **shares})
    row = recipe_row(recipe, tasks, read_results(tmp_path / "r.csv"))
    spread = np.std([0.2, 0.4], ddof=1)
    assert row[:4] == ["r", "2", f"0.30 ± {spread:.2f}", "1.00 ± 0.00"]
    assert row[-1] == "10"


def test_one_training_that_is_not_finite_spoils_the_mean(tmp_path):
    recipe, path = Recipe("r", seeds=(1,)), tmp_path / "r.csv"
    tasks = recipe_tasks(recipe, {"hate": STANDARD, "sexual": STANDARD}, "w")
    for task, ip in zip(tasks, (0.1, np.nan), strict=True):
        labels = {"key": task.key, "recipe": "r", "expert": task.expert, "seed": 1, "seconds": 1.0}
        append_result(path, {**labels, **dict.fromkeys(MEASURES, ip)})
    assert recipe_row(recipe, tasks, read_results(path))[1:3] == ["1", "not finite"]


def test_a_training_that_is_not_finite_is_a_result(world):
    measured = world.measure("hate", settings(learning_rate=1e30, steps=3))
    assert np.isnan(measured["ip"]) and measured["seconds"] > 0


def test_pairs_are_those_of_the_projects_split(world):
    train, test = split_prompts(world.prompt_pairs, ["unsafe_prompt", "safe_prompt"], SPLIT)
    pd.testing.assert_frame_equal(world.chosen(PairChoice(per_concept=6)), train)
    pd.testing.assert_frame_equal(world.test, test)


@pytest.mark.parametrize("names", [1, 2])
def test_fewer_pairs_are_a_part_of_more(world, names):
    few, many = (world.chosen(PairChoice(per_concept=n, names=names)) for n in (3, 20))
    assert set(few["pair_id"]) < set(many["pair_id"]) < set(world.table["pair_id"])
    assert set(few.groupby("concept").size()) == {3}
    assert set(many.groupby("concept")["group"].nunique()) == {names}
    assert not set(many["group"]) & set(world.test["group"])


def test_training_data_is_as_chosen(world):
    data = world.training_data("hate", settings(**{"pairs.per_concept": 5}))
    assert len(data.pairs) == 5
    assert data.scores.errors.shape == (5, 2, 2, 2)
    assert data.held_out is None
    pairs = len(world.chosen(PairChoice(per_concept=5)))
    assert len(data.preserved["safe"]) == pairs
    assert len(data.preserved["other_unsafe"]) == pairs - 5


def test_untrained_expert_changes_nothing(world):
    adapter = world.train("hate", settings(**UNTRAINED.overrides))
    assert all(not layer.b.any() for layer in adapter.layers.values())
    assert any(layer.b.any() for layer in world.train("hate", settings()).layers.values())


def test_questions_keep_categories_apart(world):
    questions = world.questions("hate")
    prompts = questions.groupby("part")["prompt"].agg(set)
    hate = world.test[world.test["category"] == "hate"]
    assert prompts["unsafe"] == set(hate["unsafe_prompt"])
    assert prompts["safe"] == set(hate["safe_prompt"])
    assert not prompts["others"] & set(hate["unsafe_prompt"])
    assert prompts["others"] < set(world.test["unsafe_prompt"])


def test_pool_is_read_back_and_remade_for_others(world, pool):
    drawn = pool.stat().st_mtime_ns
    model, table, sampling = world.model, world.table, world.sampling
    again = load_pool(pool, world.identity, None, table, sampling)  # without a model to draw with
    assert (again.winners.mean == world.pool.winners.mean).all()
    other = load_pool(pool, "another", model, table.head(2), sampling)
    assert len(other) == 2 and pool.stat().st_mtime_ns > drawn


def test_every_recipe_of_the_plan_is_valid_and_a_recipe_of_its_own():
    parameters = base_parameters()
    standard = parameters["expert_training"] | {
        "noise": parameters["noise"],
        "pairs": {
            "per_concept": parameters["dataset_generation"]["pair_split"]["train_per_concept"]
        },
    }
    for sweep, recipes in SWEEPS.items():
        found = [Settings.of(standard, recipe.overrides, 21) for recipe in recipes]
        assert len({s.model_dump_json() for s in found}) == len(found), sweep
        assert len({recipe.name for recipe in recipes}) == len(recipes), sweep


def test_a_misspelt_key_is_refused():
    with pytest.raises(ValueError, match="betta"):
        settings(betta=1.0)
