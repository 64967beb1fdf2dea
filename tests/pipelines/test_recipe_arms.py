"""What the arms of the recipe sweeps come to, and that arms which come to the same are one."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.pipelines.ablations.parameters import (
    DataChanges,
    RecipeArm,
    RecipeQuestionsParameters,
    SweepsParameters,
)
from safetydpo_kedro.pipelines.ablations.recipe_arms import DefaultRecipe, chosen_pairs
from safetydpo_kedro.pipelines.ablations.recipes import choose_recipe_questions, last_accuracy
from safetydpo_kedro.settings import ABLATION_SWEEPS, CATEGORIES

from ..worlds import base_parameters

# Three concepts of each category with 4 pairs, in turn.
TABLE = pd.DataFrame(
    [(c, f"{c}-{i % 3}") for i in range(12) for c in CATEGORIES], columns=["category", "concept"]
)
BASE = base_parameters()
RECIPES = BASE["ablations"]["recipes"]
SWEEPS = SweepsParameters.model_validate(RECIPES["sweeps"])


def default(**changes) -> DefaultRecipe:
    arguments = {
        "table": TABLE,
        "categories": RECIPES["categories"],
        "parameters": ExpertTrainingParameters.model_validate(BASE["expert_training"]),
        "changes": RECIPES["training"],
        "noise": NoiseParameters.model_validate(BASE["noise"]),
    }
    return DefaultRecipe.of(**{**arguments, **changes})


def test_the_shipped_sweeps_train_what_is_the_same_once():
    recipes, arms = default().recipes(SWEEPS), default().arms(SWEEPS)
    assert set(arms["sweep"]) == {"base", *ABLATION_SWEEPS} and set(arms["recipe"][1:]) == {
        *recipes
    }
    by_arm = arms.set_index(["sweep", "arm"])["recipe"]
    shipped = [
        ("strategy", "both_prompts"),
        ("beta", "50"),
        ("rank", "8"),
        ("caption_dropout", "0"),
        ("shared_noise", "shared"),
        ("data", "24"),
        ("concepts", "3"),
    ]
    assert by_arm[shipped].nunique() == 1
    plain = [("strategy", "plain both_prompts"), ("beta", "plain 50")]
    assert by_arm[[*plain, ("shared_noise", "plain shared")]].nunique() == 1
    # Seven sweeps share the default, three the plain one; everything else differs. Of the four
    # pairs that a concept has here, `data` asks for at most 2, 6, 12 and 24: three are the same.
    assert len(recipes) == len(arms) - 1 - 6 - 2 - 2
    first = recipes[by_arm[shipped[0]]]
    assert first.training.beta == 50 and first.training.validation.every is None
    assert first.training.preservation.rows == RECIPES["training"]["preservation"]["rows"]
    assert TABLE.loc[list(first.pairs), "category"].isin(RECIPES["categories"]).all()
    assert len(first.pairs) == 12 * len(RECIPES["categories"])


def test_plain_arms_have_the_papers_loss_alone():
    arms = [arm for arm in SWEEPS.arms if arm[2].curve == "plain"]
    assert len(arms) == 10
    for arm in arms:
        training = default().recipe(*arm).training
        assert training.redirection_weight == training.preservation.weight == 0
        assert training.supervised_weight == 0 and training.preference_weight == 1


def test_a_change_makes_another_recipe_and_reaches_where_it_should():
    sweeps = SweepsParameters.model_validate(
        {
            "rank": {"1": {"training": {"lora": {"rank": 1}}}, "8": {}},
            "shared_noise": {"own": {"noise": {"shared": False}}},
            "data": {"3": {"data": {"pairs_per_concept": 3}}},
        }
    )
    by_arm = {name: default().recipe(sweep, name, arm) for sweep, name, arm in sweeps.arms}
    assert len({recipe.name for recipe in by_arm.values()}) == 4
    assert by_arm["1"].training.lora.rank == 1 and by_arm["8"].training.lora.rank == 8
    assert by_arm["1"].training.lora.target_modules == by_arm["8"].training.lora.target_modules
    assert [recipe.noise.shared for recipe in by_arm.values()] == [True, True, False, True]
    assert len(by_arm["3"].pairs) == 3 * 3 * len(RECIPES["categories"])


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=40),
    categories=st.sets(st.sampled_from("abc"), min_size=1),
    count=st.one_of(st.none(), st.integers(1, 5)),
    concepts=st.one_of(st.none(), st.integers(1, 4)),
)
def test_the_first_pairs_of_the_first_concepts_are_taken(rows, categories, count, concepts):
    taken, seen, used = [], {}, {}
    for position, (category, concept) in enumerate(rows):
        if category not in categories:
            continue
        known = seen.setdefault(category, [])
        if concept not in known:
            known.append(concept)
        is_first = concepts is None or known.index(concept) < concepts
        used[category, concept] = used.get((category, concept), 0) + 1
        if is_first and (count is None or used[category, concept] <= count):
            taken.append(position)
    table = pd.DataFrame(rows, columns=["category", "concept"])
    data = DataChanges(pairs_per_concept=count, concepts=concepts)
    assert chosen_pairs(table, sorted(categories), data) == tuple(taken)


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ({"betta": {}}, "'betta'.*did you mean 'beta'.*ABLATION_SWEEPS"),
        ({"beta": {"1": {"training": {"btea": 1}}}}, "btea"),
        ({"beta": {"1": {"training": {"beta": -1}}}}, "greater than 0"),
        ({"shared_noise": {"no": {"noise": {"share": 0}}}}, "share"),
        ({"data": {"0": {"data": {"concepts": 0}}}}, "greater than 0"),
        ({"data": {"1": {"dta": {}}}}, "dta"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(sweeps, message):
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        SweepsParameters.model_validate(sweeps)


def test_what_only_the_default_rules_out_is_said_with_its_place():
    arm = RecipeArm(training={"label_smoothing": 0.1})
    hinge = default(changes={"loss_type": "hinge"})
    with pytest.raises(ValueError, match=r"(?s)beta\.smooth\.training.*label_smoothing = 0\.1"):
        hinge.recipe("beta", "smooth", arm)
    for categories in ([], ["hate", "love"]):
        with pytest.raises(ValueError, match=r"categories = .*that have training pairs"):
            default(categories=categories)


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [("5", None, 5.0), ("sft", None, "sft"), ("plain 5", 5, 5.0), ("plain", "sft", "sft")],
)
def test_arms_have_a_place_on_the_axis(name, value, place):
    assert RecipeArm(value=value).place(name) == place


def test_trained_categories_are_asked_about_most():
    prompts = [
        (benchmark, category, f"{category}-{i % 3}")
        for category in CATEGORIES
        for i in range(9)
        for benchmark in ("unsafe", "safe")
    ]
    neutral = [("neutral", "", f"n{i % 2}") for i in range(8)]
    table = pd.DataFrame([*prompts, *neutral], columns=["benchmark", "category", "concept"])
    some = RecipeQuestionsParameters(per_category=6, per_other_category=1, per_neutral_concept=2)
    asked = choose_recipe_questions(table, ["hate", "sexual"], some)
    unsafe = asked[asked["benchmark"] == "unsafe"].groupby("category").size()
    assert unsafe.to_dict() == {c: 6 if c in ("hate", "sexual") else 1 for c in CATEGORIES}
    assert (asked["benchmark"] == "safe").sum() == unsafe.sum()
    assert (asked["benchmark"] == "neutral").sum() == 4
    none = some.model_copy(update={"per_other_category": 0, "per_neutral_concept": 0})
    assert set(choose_recipe_questions(table, ["hate"], none)["category"]) == {"hate"}


def test_the_accuracy_at_the_end_is_that_of_the_last_fifth():
    history = pd.DataFrame({"implicit_accuracy": [0.0] * 8 + [0.5, 1.0]})
    assert last_accuracy(history) == 0.75
    assert last_accuracy(history.tail(1)) == 1.0
