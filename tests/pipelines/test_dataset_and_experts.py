"""Data generation and expert training as they are configured, on a tiny real model."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import load_dataset
from kedro.runner import SequentialRunner
from PIL import Image

from safetydpo_kedro.diffusion.lora_files import save_adapter
from safetydpo_kedro.images import decode_images
from safetydpo_kedro.pictograms.grammar import concept_table, neutral_prompt_table
from safetydpo_kedro.pipelines.dataset_generation import create_pipeline as dataset_generation
from safetydpo_kedro.pipelines.expert_training import create_pipeline as expert_training
from safetydpo_kedro.prompts.split import normalise
from safetydpo_kedro.settings import CATEGORIES, EXPERTS

from ..worlds import (
    add_parameters,
    base_catalog,
    base_parameters,
    tiny_clip,
    tiny_expert,
    tiny_pipeline,
)

OVERRIDES = {
    "dataset_generation": {
        "pair_split": {"train_per_concept": 2, "test_per_concept": 1},
        "neutral_split": {"train_per_concept": 1, "test_per_concept": 1},
        "drawing": {"sampling": {"steps": 1, "guidance_scale": 1.0}, "shard_size": 20},
    },
    "noise": {"draws": 3},
    "expert_training": {
        "steps": 2,
        "batch_size": 2,
        "preservation": {"rows": 2},
        "validation": {"every": 1, "pairs": 2, "images": 1, "sampling": {"steps": 1}},
    },
    "hate": {"expert_training": {"steps": 3, "lora": {"rank": 2}}},
    # conf/base gives all_single parameters of its own: every size must be stated again.
    "all_single": {
        "expert_training": {
            "steps": 2,
            "batch_size": 2,
            "preservation": {"rows": 2},
            "validation": {"every": None},
        }
    },
}
RANKS = {"hate": 2, "all_single": 16}  # all_single's rank comes from conf/base


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Catalog after a run of both pipelines, and the folder of its files."""
    folder = tmp_path_factory.mktemp("project")
    catalog = base_catalog(folder)
    catalog["concepts"].save(concept_table())
    catalog["neutral_prompts"].save(neutral_prompt_table())
    catalog["base_model"].save(tiny_pipeline())
    clip, config, tokenizer = tiny_clip()
    catalog["judge_clip"].save((clip, config, tokenizer))
    catalog["q16_prompts"].save({"prompts": torch.randn(2, config["model_cfg"]["embed_dim"])})
    overrides = {key: dict(value) for key, value in OVERRIDES.items()}
    overrides["expert_training"]["checkpoints"] = {"directory": str(folder / "checkpoints")}
    pipelines = {"dataset_generation": dataset_generation(), "expert_training": expert_training()}
    add_parameters(catalog, base_parameters(**overrides), **pipelines)
    SequentialRunner().run(sum(pipelines.values(), start=dataset_generation()), catalog)
    return catalog, folder


def test_the_split_does_not_leak(project):
    catalog, _ = project
    columns = ["unsafe_prompt", "safe_prompt"]
    train, test = catalog.load("train_pairs"), catalog.load("test_prompts")
    assert len(train) == 2 * 21
    assert len(test) == 21
    seen = {normalise(p) for c in columns for p in train[c]}
    assert not seen & {normalise(p) for c in columns for p in test[c]}
    assert not set(train["group"]) & set(test["group"])


def test_both_images_of_a_pair_start_from_the_same_noise(project):
    catalog, _ = project
    pairs, model = catalog.load("image_pairs"), catalog.load("base_model")
    from safetydpo_kedro.parameters import SamplingParameters

    row = pairs.iloc[3]
    sampling = SamplingParameters(steps=1, guidance_scale=1.0)
    for kind in ("unsafe", "safe"):
        image = model.sample([row[f"{kind}_prompt"]], [row["seed"]], sampling)[0]
        stored = decode_images([row[f"{kind}_image"]])[0]
        assert np.abs(image.astype(int) - stored.astype(int)).max() <= 1
    assert pairs["seed"].is_unique


def test_hugging_face_datasets_opens_the_images(project):
    _, folder = project
    files = str(folder / "data/04_feature/image_pairs/*.parquet")
    dataset = load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(folder / "hf_cache")
    )
    assert len(dataset) == 42
    assert isinstance(dataset[0]["unsafe_image"], Image.Image)


def test_the_latent_cache_holds_posteriors_of_the_images(project):
    catalog, _ = project
    cache, pairs, model = (catalog.load(n) for n in ("latent_cache", "image_pairs", "base_model"))
    mean, std = model.encode_images(decode_images(pairs["safe_image"].iloc[:4]))
    torch.testing.assert_close(cache["winner_mean"][:4], mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cache["winner_std"][:4], std, rtol=1e-4, atol=1e-4)
    embeddings = model.encode_prompts(list(pairs["unsafe_prompt"].iloc[:4]))["embedding"]
    torch.testing.assert_close(cache["unsafe_embedding"][:4], embeddings, rtol=1e-4, atol=1e-5)
    assert cache["pair_index"][:].tolist() == list(range(42))


def test_the_report_counts_and_judges_the_pairs(project):
    catalog, _ = project
    report = catalog.load("dataset_report").set_index("category")
    assert list(report.index) == [*CATEGORIES, "total"]
    assert (report["train"].drop("total") == 6).all()
    assert report.loc["total", "written"] == 21 * 72
    scores = catalog.load("pair_scores")
    share = scores[scores["kind"] == "unsafe"]["inappropriate"].mean()
    assert report.loc["total", "ip_unsafe"] == pytest.approx(share)


def test_every_expert_is_trained_with_its_own_parameters(project):
    catalog, folder = project
    for expert in EXPERTS:
        adapter = catalog.load(f"{expert}_expert")
        history = catalog.load(f"{expert}_training_history")
        assert adapter.metadata["expert"] == expert
        assert len(history) == (3 if expert == "hate" else 2)
        assert {layer.rank for layer in adapter.layers.values()} == {RANKS.get(expert, 8)}
        assert np.isfinite(history["loss"]).all()
        assert (folder / f"data/08_reporting/training/{expert}_curves.json").is_file()
    assert not list((folder / "checkpoints").iterdir())  # all experts are on disk


def test_scores_of_the_reference_are_there_for_every_draw(project):
    catalog, _ = project
    errors = catalog.load("reference_scores")["reference_errors"]
    assert errors.shape == (42, 3, 2, 2)
    assert errors.isfinite().all() and (errors > 0).all()


def test_looks_at_held_out_pairs_are_in_history_and_grid(project):
    catalog, folder = project
    assert catalog.load("hate_training_history")["held_out_accuracy"].notna().all()
    images, header = catalog.load("hate_validation_images")
    assert list(images) == [f"step_{step:06d}" for step in range(4)]
    train_pairs = catalog.load("train_pairs")
    assert (
        train_pairs.set_index("unsafe_prompt").loc[header["prompts"], "category"].eq("hate").all()
    )
    for expert in EXPERTS:  # all_single looks at nothing, and says so
        with Image.open(folder / f"data/08_reporting/training/{expert}_validation.png") as image:
            assert min(image.size) > 40


def test_a_second_run_gives_the_same_adapter_byte_for_byte(project):
    catalog, folder = project
    path = folder / "data/06_models/experts/violence.safetensors"
    before = path.read_bytes()
    path.unlink()
    pipeline = expert_training().only_nodes_with_namespaces(["violence"])
    SequentialRunner().run(pipeline, catalog)
    assert path.read_bytes() == before


def test_the_contact_sheet_is_a_picture(project):
    _, folder = project
    with Image.open(folder / "data/08_reporting/pair_contact_sheet.png") as image:
        assert min(image.size) > 100
    assert isinstance(project[0].load("pair_scores"), pd.DataFrame)


def test_an_expert_may_be_trained_on_top_of_an_adapter(project):
    """Whose weights are then part of the reference: the scores of the base model do not hold."""
    catalog, folder = project
    before = catalog.load("self_harm_training_history")
    place = folder / "data/01_raw/foundations/self_harm.safetensors"
    save_adapter(tiny_expert(catalog.load("base_model").unet, seed=0), place)
    pipeline = expert_training().only_nodes_with_namespaces(["self_harm"])
    SequentialRunner().run(pipeline, catalog)
    after = catalog.load("self_harm_training_history")
    assert after["preference_loss"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert after["winner_error"][0] != pytest.approx(before["winner_error"][0], rel=1e-4)


def test_an_eighth_category_is_added_beside_the_others(project, monkeypatch):
    catalog, folder = project
    experts = folder / "data/06_models/experts"
    before = {path.name: path.read_bytes() for path in experts.glob("*.safetensors")}
    table = catalog.load("train_pairs")
    catalog["train_pairs"].save(table.replace({"category": {"shocking": "deception"}}))
    monkeypatch.setattr(
        "safetydpo_kedro.pipelines.expert_training.pipeline.EXPERTS", ("deception",)
    )
    shocking = base_parameters(**OVERRIDES)["hate"] | {"categories": ["deception"]}
    shocking["expert_training"]["checkpoints"] = {"directory": str(folder / "checkpoints")}
    pipeline = expert_training()
    add_parameters(catalog, {"deception": shocking}, expert_training=pipeline)
    SequentialRunner().run(pipeline.only_nodes_with_namespaces(["deception"]), catalog)
    catalog["train_pairs"].save(table)
    assert json.loads(catalog.load("deception_expert").metadata["categories"]) == ["deception"]
    assert {name: (experts / name).read_bytes() for name in before} == before
