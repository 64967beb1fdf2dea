"""The pipelines ``adversarial`` and ``hardening`` as they are configured, on tiny real models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.runner import SequentialRunner
from kedro.validation.exceptions import ParameterValidationError
from PIL import Image

from safetydpo_kedro.attacks import available_attacks
from safetydpo_kedro.datasets import ShardedImagesDataset
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.hooks import FreshnessHooks, SummaryHooks
from safetydpo_kedro.images import decode_images
from safetydpo_kedro.pipelines import adversarial, evaluation, hardening
from safetydpo_kedro.pipelines.adversarial.goals import choose_goals
from safetydpo_kedro.pipelines.adversarial.parameters import GoalsParameters
from safetydpo_kedro.pipelines.adversarial.searching import goal_of
from safetydpo_kedro.preference.latents import LatentImages, LatentPairs, PreservedImages
from safetydpo_kedro.preference.reference_scores import ReferenceScores
from safetydpo_kedro.settings import ATTACKED, CATEGORIES, HARDENED

from ..worlds import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    add_parameters,
    base_parameters,
    prompt_pairs,
    random_cache,
)
from .test_evaluation import make_world, overrides

# A few steps of every attack; they are tested elsewhere.
TINY = {
    "ring_a_bell": {"length": 3, "population": 4, "generations": 2},
    "mma_diffusion": {"length": 3, "steps": 1, "top": 4, "candidates": 4},
    "p4d": {"steps": 2, "check_every": 1, "length": 3},
    "unlearn_diff_atk": {"places": 2, "timesteps": 1, "iterations": 2},
    "sneaky_prompt": {"queries": 4, "places": 1},
    "random_words": {"queries": 2, "length": 3},
}
SEARCHED = {"p4d", "sneaky_prompt", "unlearn_diff_atk", "random_words"}
FRESH = 1
SMALL = {"steps": 2, "batch_size": 2, "preservation": {"rows": 6}, "warmup_steps": 0}


def parameters(folder, attacks=TINY, **changes):
    whole = base_parameters(
        evaluation=overrides(),
        all_single={"expert_training": SMALL},
        adversarial={
            "goals": {"per_category": 1, **changes},
            # No image is that similar, so that no search stops before its end.
            "search": {"fresh_seeds": FRESH, "aim": 1.5},
        },
        hardening={"goals": {"per_category": 1}},
        expert_training={"checkpoints": {"directory": str(folder / "checkpoints")}},
    )
    whole["evaluation"]["checker"] = overrides()["checker"]
    whole["adversarial"]["search"]["attacks"] = dict(attacks)
    return whole


def run(catalog, folder, attacks=TINY, pipeline=None, **changes):
    pipelines = {
        "adversarial": adversarial.create_pipeline(),
        "hardening": hardening.create_pipeline(),
        "evaluation": evaluation.create_pipeline(),
    }
    add_parameters(catalog, parameters(folder, attacks, **changes), **pipelines)
    pipeline = pipeline or pipelines["adversarial"]
    FreshnessHooks().before_pipeline_run({}, pipeline, catalog)
    SequentialRunner().run(pipeline, catalog, only_missing_outputs=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adversarial")


@pytest.fixture(scope="module")
def catalog(folder):
    """The catalog after a run of ``adversarial``."""
    catalog = make_world(folder)
    unet = diffusion_model(catalog.load("base_model").pipeline).unet
    name = next(n for n in unet.state_dict() if n.endswith("attn1.to_k.weight"))
    catalog["esd_u_weights"].save({name: unet.state_dict()[name] * 3})
    run(catalog, folder)
    return catalog


def test_every_victim_is_searched_with_every_attack_for_every_goal(catalog):
    prompts = catalog.load("adversarial_prompts")
    counts = prompts.groupby(["variant", "attack"]).size()
    assert (counts == len(CATEGORIES)).all()
    transferable = {("any", "mma_diffusion"), ("any", "ring_a_bell")}
    searched = {(victim, attack) for victim in ATTACKED for attack in SEARCHED}
    assert set(counts.index) == transferable | searched
    assert set(prompts["attack"]) == set(available_attacks())
    goals = catalog.load("attack_goals").set_index("prompt_id")["prompt"]
    assert prompts["goal"].tolist() == goals[prompts["prompt_id"]].tolist()
    assert (prompts["prompt"] != prompts["goal"]).all() and prompts["prompt"].str.len().min() > 0
    white = prompts["attack"].isin(["p4d", "unlearn_diff_atk"])
    assert (prompts.loc[white, "gradients"] > 0).all()
    assert (prompts.loc[prompts["variant"] == "any", "images"] == 0).all()


def test_goals_are_what_the_unprotected_model_draws(catalog):
    goals = catalog.load("attack_goals")
    assert goals["category"].tolist() == list(CATEGORIES)
    pairs = prompt_pairs().set_index("pair_id")
    assert goals["safe_prompt"].tolist() == pairs.loc[goals["prompt_id"], "safe_prompt"].tolist()
    drawing = catalog.load("params:evaluation.drawing")
    expected = catalog.load("base_model").sample(
        goals["prompt"].tolist(), goals["seed"].tolist(), drawing.sampling
    )
    difference = decode_images(goals["image"]).astype(int) - expected
    assert np.abs(difference).max() <= 1


def test_a_goal_without_a_counterpart_stays_one_on_disk(tmp_path, red_png):
    dataset = ShardedImagesDataset(path=str(tmp_path / "goals"), image_columns=["image"])
    rows = [("1", "a gun", 0, "violence", "a spoon"), ("2", "a gun", 0, "violence", None)]
    table = pd.DataFrame(rows, columns=["prompt_id", "prompt", "seed", "category", "safe_prompt"])
    dataset.save({"goals": table.assign(image=[{"bytes": red_png, "path": None}] * 2)})
    goals = [goal_of(row) for _, row in dataset.load().iterrows()]
    assert [goal.safe_prompt for goal in goals] == ["a spoon", None]
    assert [goal.sensitive_words for goal in goals] == [["gun"], ["a", "gun"]]


def test_everything_found_is_drawn_with_the_goals_seed_and_with_fresh_ones(catalog):
    prompts = catalog.load("adversarial_prompts")
    for victim in ("base", "esd_u", "all_single"):
        images = catalog.load(f"{victim}_adversarial_images")
        assert (images.groupby("benchmark").size() == len(CATEGORIES) * (1 + FRESH)).all()
        assert set(images["benchmark"]) == {"none", *available_attacks()}
        own = prompts[prompts["variant"].isin([victim, "any"])]
        found = own.set_index(["attack", "prompt_id"])["prompt"]
        adversarial_rows = images[images["benchmark"] != "none"]
        keys = list(zip(adversarial_rows["benchmark"], adversarial_rows["prompt_id"], strict=True))
        assert adversarial_rows["drawn"].tolist() == found[keys].tolist()
        seeds = images.groupby("prompt_id")["seed"].nunique()
        assert (seeds == 1 + FRESH).all()  # the same for all attacks
        first = images[images["trial"] == 0].drop_duplicates("prompt_id")
        goals = catalog.load("attack_goals").set_index("prompt_id")
        assert first["seed"].tolist() == goals.loc[first["prompt_id"], "seed"].tolist()


def test_victims_draw_with_their_own_weights(catalog):
    def pictures(victim):
        images = catalog.load(f"{victim}_adversarial_images")
        plain = images[(images["benchmark"] == "none") & (images["trial"] == 0)]
        return decode_images(plain["image"]).astype(int)

    base, edited, expert = (pictures(v) for v in ("base", "esd_u", "all_single"))
    assert np.abs(base - edited).max() > 1 and np.abs(base - expert).max() > 1
    goals = decode_images(catalog.load("attack_goals")["image"]).astype(int)
    assert np.abs(base - goals).max() <= 1


def test_tables_chart_and_grid_cover_all_victims(catalog):
    table = catalog.load("attack_table")
    attacks = {*available_attacks(), "all together"}
    assert set(zip(table["variant"], table["attack"], strict=True)) == {
        (v, a) for v in ATTACKED for a in attacks
    }
    assert table[["asr", "asr_before", "hit", "ip_fresh"]].stack().between(0, 1).all()
    assert (table["asr"] >= table["asr_before"]).all()
    names = [trace.name for trace in catalog.load("attack_success").data if trace.type == "bar"]
    assert names == list(ATTACKED)
    assert catalog.load("attack_table_markdown").count("\n") >= len(table)


def test_a_run_ends_with_success_and_files(catalog, capsys):
    SummaryHooks().after_pipeline_run(adversarial.create_pipeline(), catalog)
    out = capsys.readouterr().out
    for text in ("Attacks: goals hit", "fitted_co_merge", "all\n", "adversarial_prompts.csv"):
        assert text.strip() in out


def test_another_attack_computes_itself_alone(catalog, folder):
    def shards(name):
        path = folder / "data/07_model_output/adversarial" / name
        return {p.name: p.stat().st_mtime_ns for p in path.glob("*.parquet")}

    names = ("prompts/any", "prompts/base", "images/base", "judgements/base")
    nodes = ["evaluation.collect_benchmarks"]
    nodes += [f"adversarial.{n}" for n in ("draw_goals", "search_transferable")]
    nodes += [f"adversarial.base.{n}" for n in ("search_prompts", "draw_images", "judge_images")]
    part = adversarial.create_pipeline().only_nodes(*nodes)
    before = {name: shards(name) for name in names}
    fewer = {name: settings for name, settings in TINY.items() if name != "p4d"}
    run(catalog, folder, fewer, part)
    assert set(catalog.load("base_adversarial_prompts")["attack"]) == SEARCHED - {"p4d"}
    run(catalog, folder, pipeline=part)
    assert {name: shards(name) for name in names} == before
    run(catalog, folder, {**TINY, "random_words": {"queries": 1, "length": 2}}, part)
    now = shards("prompts/base")
    redone = {name for name, time in now.items() if time != before["prompts/base"].get(name)}
    assert redone and all("random_words" in name for name in redone)
    run(catalog, folder, pipeline=part)


def test_a_search_that_is_cut_off_goes_on_with_the_next_prompt(catalog, folder, monkeypatch):
    from safetydpo_kedro.attacks.registry import Attack

    whole = catalog.load("base_adversarial_prompts")
    search = adversarial.create_pipeline().only_nodes("adversarial.base.search_prompts")
    settings = {**TINY, "p4d": {**TINY["p4d"], "learning_rate": 0.2}}
    searched, plain = [], Attack.search

    def cut(self, goal, scene, config, seed):
        if len(searched) == 4:
            raise KeyboardInterrupt
        searched.append(goal.prompt_id)
        return plain(self, goal, scene, config, seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Attack, "search", cut)
        run(catalog, folder, settings, search)
    rest = []
    monkeypatch.setattr(
        Attack,
        "search",
        lambda self, goal, *others: (rest.append(goal.prompt_id), plain(self, goal, *others))[1],
    )
    run(catalog, folder, settings, search)
    wanted = whole.loc[whole["attack"] == "p4d", "prompt_id"]
    assert len(searched) == 4 and sorted([*searched, *rest]) == sorted(wanted)
    monkeypatch.undo()
    run(catalog, folder)
    pd.testing.assert_frame_equal(catalog.load("base_adversarial_prompts"), whole)


def test_prompts_can_be_imported_as_a_list_of_ones_own(catalog, folder):
    from safetydpo_kedro.pipelines.prompt_import.nodes import find_published_files, import_custom
    from safetydpo_kedro.pipelines.prompt_import.parameters import CommonParameters
    from safetydpo_kedro.prompts.importers.prompt_list import PromptListParameters

    path = folder / "data/08_reporting/adversarial/adversarial_prompts.csv"
    columns = {"prompt": "prompt", "categories": "category", "seed": "evaluation_seed"}
    settings = PromptListParameters.model_validate({"columns": columns})
    files = find_published_files(custom=path)
    read, *_ = import_custom(files, path, CommonParameters(), settings)
    shared = catalog.load("adversarial_prompts")
    assert read["prompt"].tolist() == shared["prompt"].tolist()
    assert read["seed"].tolist() == shared["evaluation_seed"].tolist()
    assert read["category"].tolist() == shared["category"].tolist()


def test_goals_are_as_many_as_asked_for_and_named_when_there_are_none():
    prompts = pd.DataFrame(
        {
            "benchmark": ["unsafe"] * 6 + ["safe"] * 3,
            "prompt_id": [*"abcdef", *"abc"],
            "category": ["hate"] * 3 + ["sexual"] * 3 + ["hate"] * 3,
            "prompt": [f"prompt {i}" for i in range(9)],
            "seed": range(9),
            "guidance_scale": 7.5,
        }
    )
    goals = choose_goals(prompts, GoalsParameters(per_category=2, seed=1))
    assert goals["category"].value_counts().to_dict() == {"hate": 2, "sexual": 2}
    safe = dict(zip("abc", ["prompt 6", "prompt 7", "prompt 8"], strict=True))
    assert goals["safe_prompt"].tolist() == [safe.get(name) for name in goals["prompt_id"]]
    assert goals["guidance_scale"].isna().all()
    assert len(choose_goals(prompts, GoalsParameters())) == 6
    with pytest.raises(ValueError, match=r"(?s)benchmarks = \['i2p'\].*only.*'safe', 'unsafe'"):
        choose_goals(prompts, GoalsParameters(benchmarks=("i2p",)))


@pytest.mark.parametrize(
    ("attacks", "words"),
    [
        ({"p4e": {}}, "unknown attack 'p4e'"),
        ({"p4d": {"sped": 1}}, "settings of attack 'p4d'.*sped"),
        ({"ring_a_bell": {"population": 1}}, "population"),
    ],
)
def test_attacks_are_checked_before_anything_runs(catalog, folder, attacks, words):
    with pytest.raises(ParameterValidationError, match=f"(?s){words}"):
        run(catalog, folder, attacks)


@pytest.fixture(scope="module")
def hardened(catalog, folder):
    """The catalog after a run of ``hardening``."""
    model = catalog.load("base_model")
    pairs = prompt_pairs(per_category=3)
    catalog["train_pairs"].save(pairs)
    catalog["latent_cache"].save({"shard-00000": random_cache(model, pairs).to_tensors()})
    noise = torch.randn(4, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    images = LatentImages(noise, torch.zeros_like(noise))
    neutral = PreservedImages(images, model.encode_prompts(["a tree"] * 4))
    catalog["preservation_cache"].save({"shard-00000": neutral.to_tensors()})
    needed = evaluation.create_pipeline().only_nodes(
        *(
            f"evaluation.{v}.{n}"
            for v in ("base", "all_single")
            for n in ("draw_images", "judge_images")
        ),
        "evaluation.collect_benchmarks",
        "evaluation.embed_references",
    )
    run(catalog, folder, pipeline=needed)
    run(catalog, folder, pipeline=hardening.create_pipeline())
    return catalog


def test_adversarial_pairs_have_the_images_of_the_pairs_they_were_found_for(hardened):
    table = hardened.load("hardening_pairs")
    old = hardened.load("train_pairs")
    cache = LatentPairs.from_tensors(hardened.load("hardening_cache"))
    scores = ReferenceScores.from_tensors(hardened.load("hardening_reference_scores"))
    assert len(table) == len(cache) == len(scores.errors) == len(old) + 6 * len(CATEGORIES)
    assert scores.draws == 0 and len(set(cache.ids.tolist())) == len(cache)
    assert set(table["attack"]) == {"none", *available_attacks()}
    assert table["pair_id"].is_unique
    model = hardened.load("base_model")
    for row, extra in table[table["attack"] != "none"].iterrows():
        source = extra["pair_id"].removeprefix(f"{extra['attack']}-")
        (origin,) = old.index[old["pair_id"] == source]
        both = torch.tensor([row, origin])
        for images in (cache.winners, cache.losers):
            assert torch.equal(*images.mean[both])
        assert extra["safe_prompt"] == old.loc[origin, "safe_prompt"]
        expected = model.encode_prompts([extra["unsafe_prompt"]])["embedding"][0]
        found = cache.unsafe["embedding"][both][0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_goals_of_the_hardening_are_training_pairs_alone(hardened):
    goals = hardened.load("hardening_goals")
    assert set(goals["prompt_id"]) <= set(hardened.load("train_pairs")["pair_id"])
    assert (goals.groupby("category").size() == 1).all()


def test_hardening_is_compared_in_safety_and_quality(hardened):
    table = hardened.load("hardening_table").set_index("variant")
    assert list(table.index) == ["base", "all_single", HARDENED]
    attacks = {f"hit_{name}" for name in available_attacks()}
    assert attacks <= set(table.columns)
    shares = table[["ip", "hit_all_together", "concept_correct_safe", "concept_correct_neutral"]]
    assert shares.stack().between(0, 1).all() and shares.notna().all().all()
    bars = [t for t in hardened.load("hardening_attack_success").data if t.type == "bar"]
    assert [bar.name for bar in bars] == list(table.index)
    plain, hard = (hardened.load(f"{name}_expert") for name in ("all_single", HARDENED))
    assert plain.layers.keys() != hard.layers.keys() or any(
        not torch.equal(plain.layers[n].b, hard.layers[n].b) for n in plain.layers
    )
    assert hard.metadata["expert"] == HARDENED


def test_the_grid_shows_base_and_attacks(catalog):
    with Image.open(catalog["attack_grid"]._filepath) as sheet:
        assert sheet.height > 100 * len(ATTACKED)
