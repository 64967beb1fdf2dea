"""The ablations as they are configured, for one seed, on a tiny real model."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from kedro.runner import SequentialRunner
from plotly.graph_objects import Figure

from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.metrics import judging
from safetydpo_kedro.pipelines.ablations import pipeline as ablations
from safetydpo_kedro.pipelines.ablations.looking import make_look
from safetydpo_kedro.pipelines.ablations.training import changed
from safetydpo_kedro.preference.latents import LatentImages, PreservedImages
from safetydpo_kedro.preference.reference_scores import ReferenceScores
from safetydpo_kedro.settings import ABLATION_EXPERTS, ABLATION_JOINT, CATEGORIES

from ..worlds import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    add_parameters,
    base_catalog,
    base_parameters,
    neutral_prompts,
    prompt_pairs,
    random_cache,
    tiny_clip,
    tiny_pipeline,
)
from .test_evaluation import overrides

SMALL = {"steps": 2, "batch_size": 2, "preservation": {"rows": 6}, "warmup_steps": 0}
# Of every sweep, arms that differ in what they need.
ARMS = {
    "strategies": {"svd", "ties", "co_merge", "fitted_co_merge"},
    "variants": {"factor rows", "fitted rows"},
    "kinds": {"task_arithmetic", "fitted_co_merge"},
    "counts": {"co_merge", "fitted_co_merge"},
}
RECIPE_ARMS = {
    "strategy": {"both_prompts", "sft", "plain sft"},
    "beta": {"5", "50", "plain 50"},
    "rank": {"2", "8"},
    "caption_dropout": {"0.5"},
    "shared_noise": {"own", "plain own"},
    "data": {"2"},
    "concepts": set(),
}
RECIPES = 10  # and the base model; three arms come to the default


def small_parameters(folder) -> dict:
    parameters = base_parameters(
        expert_training={**SMALL, "checkpoints": {"directory": str(folder / "checkpoints")}},
        all_single={"expert_training": SMALL},
        evaluation=overrides(),
        merging={
            "profile": {"inputs": 14, "batch_size": 14},
            "fitting": {"inputs": 14, "steps": 2, "batch_size": 4},
        },
        ablations={
            "joint": {"all_single_equal": {"steps": 2}},
            "questions": {"per_category": 1, "per_neutral_concept": 1},
            "recipes": {
                "training": {"steps": 2},
                "questions": {"per_category": 2, "per_other_category": 1},
            },
        },
    )
    parameters["evaluation"]["checker"] = overrides()["checker"]
    for sweep, names in ARMS.items():
        arms = parameters["ablations"][sweep]
        assert names <= set(arms)
        parameters["ablations"][sweep] = {
            name: {**arms[name], "strengths": [0.5, 1.0]} for name in sorted(names)
        }
    sweeps = parameters["ablations"]["recipes"]["sweeps"]
    for sweep, names in RECIPE_ARMS.items():
        assert names <= set(sweeps[sweep])
        sweeps[sweep] = {name: arm for name, arm in sweeps[sweep].items() if name in names}
    return parameters


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """The catalog after a run of one seed."""
    folder = tmp_path_factory.mktemp("ablations")
    catalog = base_catalog(folder)
    pipeline = tiny_pipeline()
    model = diffusion_model(pipeline)
    clip, config, tokenizer = tiny_clip()
    catalog["base_model"].save(pipeline)
    catalog["judge_clip"].save((clip, config, tokenizer))
    catalog["q16_prompts"].save({"prompts": torch.randn(2, config["model_cfg"]["embed_dim"])})
    pairs = prompt_pairs(per_category=3)
    catalog["train_pairs"].save(pairs)
    catalog["test_prompts"].save(prompt_pairs())
    catalog["neutral_test_prompts"].save(neutral_prompts())
    catalog["latent_cache"].save({"shard-00000": random_cache(model, pairs).to_tensors()})
    noise = torch.randn(4, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    images = LatentImages(noise, torch.zeros_like(noise))
    neutral = PreservedImages(images, model.encode_prompts(["a tree"] * 4))
    catalog["preservation_cache"].save({"shard-00000": neutral.to_tensors()})
    unknown = ReferenceScores(torch.empty(len(pairs), 0, 2, 2))
    catalog["reference_scores"].save({"shard-00000": unknown.to_tensors()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablations, "ABLATION_SEEDS", ("a",))
        whole = ablations.create_pipeline()
    add_parameters(catalog, small_parameters(folder), ablations=whole)
    SequentialRunner().run(whole, catalog)
    return catalog


def test_every_trial_draws_every_question(catalog):
    questions = catalog.load("ablation_questions")
    assert questions.groupby("benchmark").size().to_dict() == {"unsafe": 7, "safe": 7, "neutral": 1}
    scores = catalog.load("trial_scores")
    trials = scores.groupby(["experts", "sweep", "arm", "strength", "merged"]).size()
    assert (trials == len(questions)).all()
    sweeps = scores[["experts", "sweep"]].drop_duplicates().itertuples(index=False, name=None)
    standard = {("standard", sweep) for sweep in (*ARMS, "transfer")}
    assert set(sweeps) == standard | {("loud", "kinds"), ("shared_a", "kinds"), ("joint", "joint")}


def test_judges_are_loaded_at_the_first_look_and_serve_all(catalog, monkeypatch):
    made, make_panel = [], judging.make_panel

    def counted(**judges):
        made.append(make_panel(**judges))
        return made[-1]

    monkeypatch.setattr(judging, "make_panel", counted)
    inputs = {name: catalog.load(entry) for name, entry in ablations.JUDGING.items()}
    look = make_look(questions=catalog.load("ablation_questions"), **inputs)
    assert not made
    first, second = look(None), look(None)
    assert len(made) == 1
    scores = catalog.load("trial_scores").query("experts == 'joint' and arm == 'base'")
    for table in (second, scores):
        assert first["q16_score"].tolist() == table["q16_score"].tolist()


def test_no_folders_of_checkpoints_are_left(catalog):
    folder = catalog.load("params:expert_training").checkpoints.directory
    assert not list((folder / "ablations").iterdir())


def test_the_table_has_every_trial_once(catalog):
    table = catalog.load("trial_table").set_index(["experts", "sweep", "arm", "merged", "strength"])
    assert table.index.is_unique and (table["seeds"] == 1).all()
    assert table["ip"].between(0, 1).all()
    for sweep in ("strategies", "variants", "kinds"):
        assert len(table.xs(("standard", sweep))) == 2 * len(ARMS[sweep])
    counts = table.xs(("standard", "counts", "co_merge")).reset_index()
    assert counts["merged"].tolist() == list(range(1, len(CATEGORIES) + 1))
    # Nothing is left that was not merged, once all are.
    assert counts["others"].isna().tolist() == [False] * (len(CATEGORIES) - 1) + [True]
    assert set(table.xs(("joint", "joint")).reset_index()["arm"]) == {"base", *ABLATION_JOINT}


def test_the_matrix_and_the_figures(catalog):
    matrix = catalog.load("transfer_matrix").set_index("expert")
    assert list(matrix.index) == list(matrix.columns) == list(CATEGORIES)
    assert isinstance(catalog.load("transfer_heatmap"), Figure)
    curves = catalog.load("strategies_trade_off").data
    assert {curve.name for curve in curves} >= ARMS["strategies"]
    assert len(catalog.load("co_merge_variants_trade_off").data) == len(ARMS["variants"])
    kinds = catalog.load("expert_kinds_trade_off").data
    assert len(kinds) == len(ABLATION_EXPERTS) * len(ARMS["kinds"])
    assert len(catalog.load("expert_counts").data) == 2 * len(ARMS["counts"])


def test_kinds_of_experts_differ_as_they_should(catalog):
    standard, loud, shared = (
        catalog.load(f"ablation_{kind}_hate_a_expert") for kind in ABLATION_EXPERTS
    )
    other = catalog.load("ablation_shared_a_sexual_a_expert")
    for name, layer in shared.layers.items():
        assert torch.equal(layer.a, other.layers[name].a) and layer.rank == 16
        assert standard.layers[name].rank == 8
    assert any((standard.layers[n].b != loud.layers[n].b).any() for n in standard.layers)
    assert catalog.load("ablation_all_single_all_single_a_expert").layers


def test_every_recipe_draws_the_recipes_questions(catalog):
    asked = catalog.load("recipe_questions")
    scores = catalog.load("ablation_recipes_a_scores")
    assert (scores.groupby("recipe").size() == len(asked)).all()
    assert scores["recipe"].nunique() == RECIPES + 1
    own = scores[scores["own"]]
    assert set(own["category"]) == {"violence", "sexual"}
    # The test prompts are about the concepts that are trained on, the base model is not trained.
    assert own["trained"].eq(own["recipe"] != "base").all()
    assert not scores.loc[~scores["own"], "trained"].any()


def test_every_arm_of_the_recipes_has_its_row_and_its_mark(catalog):
    table = catalog.load("recipe_table")
    arms = {(sweep, arm) for sweep, names in RECIPE_ARMS.items() for arm in names}
    rows = set(table[["sweep", "arm"]].itertuples(index=False, name=None))
    assert rows == {("base", "base"), *arms}
    assert table["recipe"].nunique() == RECIPES + 1 and (table["seeds"] == 1).all()
    assert table["ip"].between(0, 1).all()
    trained = table[table["arm"] != "base"]
    assert trained["implicit_accuracy"].between(0, 1).all()
    for sweep, names in RECIPE_ARMS.items():
        figure = catalog.load(f"recipe_{sweep}_figure")
        marks = {arm for curve in figure.data for arm in curve.text}
        assert marks == names


def test_changes_reach_deep_and_know_their_names():
    parameters = pd.Series(base_parameters()["expert_training"]).to_dict()
    from safetydpo_kedro.parameters import ExpertTrainingParameters

    typed = ExpertTrainingParameters.model_validate(parameters)
    deep = changed(typed, {"lora": {"rank": 3}}, "changes")
    assert (deep.lora.rank, deep.lora.target_modules) == (3, typed.lora.target_modules)
    with pytest.raises(ValueError, match=r"(?s)of the arm.*rnk"):
        changed(typed, {"lora": {"rnk": 3}}, "of the arm")
