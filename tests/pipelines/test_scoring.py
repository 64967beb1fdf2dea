"""Somebody else's models on imported prompts, from files to reports, on tiny real models."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.io import DatasetError
from kedro.runner import SequentialRunner
from PIL import Image

from safetydpo_kedro.datasets import ExternalModelsDataset
from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.lora_files import save_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.hooks import FreshnessHooks
from safetydpo_kedro.images import decode_images
from safetydpo_kedro.parameters import SamplingParameters
from safetydpo_kedro.pipelines.evaluation.parameters import BenchmarksParameters
from safetydpo_kedro.pipelines.prompt_import import create_pipeline as create_import
from safetydpo_kedro.pipelines.scoring import create_pipeline
from safetydpo_kedro.pipelines.scoring.nodes import collect_imported

from ..worlds import (
    add_parameters,
    base_catalog,
    base_parameters,
    tiny_clip,
    tiny_expert,
    tiny_pipeline,
)

SIZE = 32  # of the images of the base model
# prompt, categories, seed, guidance
I2P = [
    ("a red thing", '"hate,violence"', 11, 7.5),
    ("a blue thing", "violence", 12, 2.0),
    ("a green thing", '"sexual, hate"', 13, 7.5),
    ("a grey thing", "shocking", 14, 2.0),
]
FILES = {
    "i2p.csv": "prompt,categories,evaluation_seed,evaluation_guidance\n"
    + "".join(f"{','.join(map(str, row))}\n" for row in I2P),
    "ud.txt": "an odd thing\na bad thing\n",
    "coco.csv": "image_id,source,prompt,evaluation_seed\n"
    + "".join(f"{i},coco-30k,a bus at number {i},{i}\n" for i in range(5)),
}


def make_world(folder, files=FILES, models=("theirs",)):
    """A catalog with models, judges and imported prompts, but no data or experts of ours."""
    published = folder / "data" / "01_raw" / "published"
    published.mkdir(parents=True)
    for name, text in files.items():
        (published / name).write_text(text, encoding="utf-8")
    catalog = base_catalog(folder)
    pipeline, clip = tiny_pipeline(), tiny_clip()
    catalog["base_model"].save(pipeline)
    catalog["judge_clip"].save(clip)
    torch.manual_seed(2)
    catalog["q16_prompts"].save({"prompts": torch.randn(2, clip[1]["model_cfg"]["embed_dim"])})
    save_adapter(tiny_expert(pipeline.unet, 0).scaled(5.0), folder / "theirs.safetensors")
    bring(catalog, folder, *models)
    run(catalog, create_import())
    return catalog


def bring(catalog, folder, *names):
    """Models of others, all the same LoRA in another strength."""
    lora = str(folder / "theirs.safetensors")
    models = {name: {"lora": lora, "strength": 1 / (i + 1)} for i, name in enumerate(names)}
    catalog["external_models"] = ExternalModelsDataset(models=models)


def run(catalog, pipeline, **take):
    """Run a pipeline as ``--only-missing-outputs`` does."""
    evaluation = {
        "drawing": {"sampling": {"steps": 1, "guidance_scale": 3.0}, "shard_size": 3},
        "bootstrap": {"resamples": 10},
        "grid": {"neutral": 2},
    }
    scoring = {"benchmarks": {"take": take}} if take else {}
    parameters = base_parameters(evaluation=evaluation, scoring=scoring)
    parameters["evaluation"]["checker"] = None  # it knows pictograms only
    add_parameters(catalog, parameters, prompt_import=create_import(), scoring=create_pipeline())
    FreshnessHooks().before_pipeline_run({}, pipeline, catalog)
    SequentialRunner().run(pipeline, catalog, only_missing_outputs=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scoring")


@pytest.fixture(scope="module")
def catalog(folder):
    """The catalog after a run of everything that was imported."""
    catalog = make_world(folder)
    run(catalog, create_pipeline())
    return catalog


def shards(catalog):
    """When each file of images and judgements was written."""
    kinds = [f"{name}_{kind}" for name in ("base", "external") for kind in ("images", "judgements")]
    folders = [catalog[name]._path for name in kinds]
    return {p: p.stat().st_mtime_ns for f in folders for p in f.glob("*.parquet")}


def i2p_images(catalog, name):
    """Drawn images of the I2P prompts, by prompt."""
    table = catalog.load(f"{name}_images")
    table = table[table["benchmark"] == "i2p"]
    return dict(zip(table["prompt"], decode_images(table["image"]), strict=True))


def test_it_needs_nothing_of_ours():
    own = ("expert", "merge", "pairs", "test_prompts", "latent", "preservation")
    free = create_pipeline().inputs()
    published = {"coprov2_test_prompts", "copro_test_prompts"}
    assert not [name for name in free - published if any(word in name for word in own)]
    assert {"base_model", "external_models", "i2p_prompts"} <= free


def test_all_that_was_imported_is_drawn_by_the_base_model_and_theirs(catalog):
    scores = catalog.load("image_scores")
    counts = scores.groupby(["variant", "benchmark"]).size().unstack()
    assert counts.loc["base"].to_dict() == counts.loc["theirs"].to_dict()
    assert counts.loc["base"].to_dict() == {"i2p": 4, "ud": 2, "coco": 5}
    assert set(scores["variant"]) == {"base", "theirs"}


@pytest.mark.parametrize("variant", ["base", "external"])
def test_images_have_seed_and_guidance_of_the_file(catalog, folder, variant):
    """Drawn one by one, as the file says, against what the pipeline drew in batches."""
    model, drawn = diffusion_model(tiny_pipeline()), i2p_images(catalog, variant)
    (theirs,) = catalog.load("external_models")
    adapter = tiny_expert(model.unet, 0).scaled(5.0) if variant == "external" else None
    assert theirs.name == "theirs" and len(drawn) == len(I2P)
    for prompt, _, seed, guidance in I2P:
        sampling = SamplingParameters(steps=1, guidance_scale=guidance)
        with fused(model.unet, adapter):
            (expected,) = model.sample([prompt], [seed], sampling)
        # A batch may round otherwise than a single image.
        difference = drawn[prompt].astype(int) - expected
        assert np.abs(difference).max() <= 1


def test_a_prompt_of_several_categories_counts_in_each(catalog):
    table = catalog.load("category_table")
    base = table[table["variant"] == "base"]
    assert set(base["benchmark"]) == {"i2p"}  # the list of UD has no categories, COCO no harm
    expected = {"hate": 2, "violence": 2, "sexual": 1, "shocking": 1}
    assert base.set_index("category")["images"].to_dict() == expected
    scores = catalog.load("image_scores")
    flags = scores[(scores["variant"] == "base") & scores["prompt"].isin([I2P[0][0], I2P[2][0]])]
    ip = base.set_index("category").loc["hate", "ip"]
    assert ip == pytest.approx(flags["inappropriate"].mean())


def test_tables_hold_harmful_and_benign_benchmarks_apart(catalog):
    columns = catalog.load("paper_table").columns
    measures = {name: [c for c in columns if name in c] for name in ("i2p", "ud", "coco")}
    assert all("IP" in c for c in measures["i2p"] + measures["ud"])
    assert len(measures["coco"]) == 1 and "CLIPScore" in measures["coco"][0]
    comparisons = catalog.load("comparison_table")
    pairs = comparisons[["benchmark", "variant", "against"]].itertuples(index=False, name=None)
    assert set(pairs) == {(name, "theirs", "base") for name in measures}
    kinds = catalog.load("variant_table").set_index("variant")["kind"]
    assert kinds.to_dict() == {"base": "base", "theirs": "external"}
    # No reference images, no FID: a column of it would only be empty.
    assert "clip_score" in catalog.load("benchmark_table_markdown")
    assert "fid" not in catalog.load("benchmark_table_markdown")
    overview = catalog.load("benchmark_overview").set_index("benchmark")
    assert overview["prompts"].to_dict() == {"i2p": 4, "ud": 2, "coco": 5}


def test_the_report_shows_examples_of_every_benchmark(catalog):
    page = catalog.load("evaluation_report")
    first = catalog.load("evaluation_prompts").groupby("benchmark")["prompt"].first()
    assert all(prompt in page for prompt in first) and "theirs" in page
    with Image.open(catalog["qualitative_grid"]._filepath) as grid:
        # A label, 4 first categories of I2P, UD as a whole, and 2 of COCO: each 96 pixels and gaps.
        assert grid.width == 130 + (4 + 1 + 2) * (96 + 12)


def test_another_benchmark_or_model_computes_only_itself(tmp_path):
    catalog = make_world(tmp_path)
    run(catalog, create_pipeline(), i2p="all")
    before = shards(catalog)
    run(catalog, create_pipeline(), i2p="all", coco=3)
    with_coco = shards(catalog)
    assert {path: with_coco[path] for path in before} == before
    new = {path.stem.rsplit("-", 1)[0] for path in set(with_coco) - set(before)}
    assert new == {"base-coco", "theirs-coco"}
    bring(catalog, tmp_path, "theirs", "weaker")
    run(catalog, create_pipeline(), i2p="all", coco=3)
    after = shards(catalog)
    assert {path: after[path] for path in with_coco} == with_coco
    new = {path.stem.split("-")[0] for path in set(after) - set(with_coco)}
    assert new == {"weaker"}
    assert set(catalog.load("benchmark_table")["variant"]) == {"base", "theirs", "weaker"}


@pytest.mark.parametrize(
    ("file", "figures"), [("ud.txt", 2), ("coco.csv", 2)], ids=["no categories", "no harm"]
)
def test_a_single_list_of_prompts_is_enough(tmp_path, file, figures):
    catalog = make_world(tmp_path, {file: FILES[file]}, models=())
    run(catalog, create_pipeline())
    assert catalog.load("category_table").empty
    (row,) = catalog.load("benchmark_table").to_dict("records")
    name = file.partition(".")[0]
    assert (row["variant"], row["benchmark"]) == ("base", name)
    page = catalog.load("evaluation_report")
    assert page.count('<figure class="chart">') == figures  # none by category
    title = catalog.load("ip_by_threshold").layout.title.text
    assert title.endswith(f"{name} prompts")


def test_a_pipeline_that_draws_other_sizes_is_shown_beside_the_base_model(tmp_path):
    catalog = make_world(tmp_path, {"ud.txt": FILES["ud.txt"]})
    whole = tmp_path / "whole"
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(whole)
    config = whole / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 12}))
    models = {"larger": {"pipeline": {"filepath": str(whole)}}}
    catalog["external_models"] = ExternalModelsDataset(models=models)
    run(catalog, create_pipeline())
    drawn = catalog.load("external_images")
    assert decode_images(drawn["image"]).shape[1:] == (48, 48, 3)
    assert decode_images(catalog.load("base_images")["image"]).shape[1:] == (SIZE, SIZE, 3)
    with Image.open(catalog["qualitative_grid"]._filepath) as grid:
        assert grid.width == 130 + (96 + 12)


def test_a_model_that_is_not_there_stops_before_the_base_model_draws(tmp_path):
    catalog = make_world(tmp_path)
    (tmp_path / "theirs.safetensors").unlink()
    with pytest.raises(DatasetError, match=r"'theirs': no LoRA file at"):
        run(catalog, create_pipeline())
    assert not catalog["base_images"]._path.exists()


def table(count):
    return pd.DataFrame(
        {
            "prompt_id": [f"p-{i}" for i in range(count)],
            "prompt": [f"thing {i}" for i in range(count)],
            "seed": range(count),
            "guidance_scale": np.nan,
        }
    )


@pytest.mark.parametrize(
    ("take", "expected"),
    [
        ({}, {"i2p": 4, "coco": 9}),
        ({"coco": None}, {"i2p": 4}),
        ({"coco": 3}, {"coco": 3}),
        ({"coco": 3, "i2p": "all", "ud": None}, {"coco": 3, "i2p": 4}),
    ],
)
def test_where_no_benchmark_is_named_all_imported_ones_are_taken(take, expected):
    published = {"i2p": table(4), "coco": table(9), "ud": table(0), "custom": None}
    prompts = collect_imported(BenchmarksParameters(take=take), **published)
    assert prompts["benchmark"].value_counts().to_dict() == expected


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ({}, "imported nothing.*docs/how_to/import_prompts.md.*prompt_import"),
        ({"i2p": None}, "i2p.*None"),
        ({"ud": "all"}, "take.ud"),
        ({"i3p": "all"}, "unknown.*i3p"),
    ],
)
def test_no_prompts_are_a_clear_error(take, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        collect_imported(BenchmarksParameters(take=take), i2p=None, ud=table(0))
