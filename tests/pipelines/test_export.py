"""The export as it is configured, on a tiny real model and a made-up evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from kedro.io import DatasetError
from kedro.runner import SequentialRunner
from kedro.validation.exceptions import ParameterValidationError

from safetydpo_kedro.diffusion.lora_files import load_adapter
from safetydpo_kedro.merging.profile import expert_digest
from safetydpo_kedro.pipelines.export import create_pipeline
from safetydpo_kedro.settings import CATEGORIES

from ..reporting.evaluation_tables import PROVENANCE, evaluation
from ..worlds import add_parameters, base_catalog, base_parameters, tiny_expert, tiny_pipeline

JUDGES = PROVENANCE | {"drawing": {"sampling": {"steps": 2, "guidance_scale": 3.0}}}
MERGED = ["hate", "sexual"]
WEIGHTS = {
    "pytorch_lora_weights.safetensors",
    "fitted_co_merge_kohya.safetensors",
    "aligned_pipeline",
}


@pytest.fixture
def catalog(tmp_path):
    """Experts and a merge, which nobody has evaluated yet."""
    catalog = base_catalog(tmp_path)
    pipeline = tiny_pipeline()
    catalog["base_model"].save(pipeline)
    for seed, category in enumerate(CATEGORIES):
        expert = tiny_expert(pipeline.unet, seed)
        expert.metadata.update(expert=category, expert_training=json.dumps({"steps": 10 + seed}))
        catalog[f"{category}_expert"].save(expert)
    merge = tiny_expert(pipeline.unet, seed=99)
    merge.metadata.update(merge_strategy="fitted_co_merge", merge_experts=json.dumps(MERGED))
    catalog["fitted_co_merge"].save(merge)
    return catalog


@pytest.fixture
def evaluated(catalog):
    """The same with the tables of an evaluation of that merge."""
    tables = evaluation()
    renamed = {"co_merge": "fitted_co_merge"}
    for name in ("benchmark_table", "category_table"):
        catalog[name].save(getattr(tables, name).replace({"variant": renamed}))
    variants = tables.variants.replace({"variant": renamed})
    digest = expert_digest(catalog.load("fitted_co_merge"))
    variants.loc[variants["variant"] == "fitted_co_merge", "weights_sha256"] = digest
    catalog["variant_table"].save(variants)
    catalog["judges"].save(JUDGES)
    return catalog


def run(catalog, *nodes, **export):
    pipeline = create_pipeline()
    add_parameters(catalog, base_parameters(export=export), export=pipeline)
    SequentialRunner().run(pipeline.only_nodes(*nodes) if nodes else pipeline, catalog)
    return folder_of(catalog)


def folder_of(catalog) -> Path:
    return Path(catalog["exported_lora"]._filepath).parent


def draw(pipeline):
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
    return pipeline("a red cup on a table", generator=generator, **options).images[0]


def stock(folder, **options):
    """What the card's reader does, without this project."""
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(folder, **options)
    return pipeline


def test_the_folder_is_what_stock_diffusers_takes(evaluated):
    folder = run(evaluated)
    assert {path.name for path in folder.iterdir()} == WEIGHTS | {"README.md"}
    aligned = draw(stock(folder))
    np.testing.assert_array_equal(
        aligned, draw(stock(folder, weight_name="pytorch_lora_weights.safetensors"))
    )
    assert np.abs(aligned - draw(tiny_pipeline())).max() > 0.01
    fused = draw(DiffusionPipeline.from_pretrained(folder / "aligned_pipeline"))
    np.testing.assert_allclose(aligned, fused, atol=1e-4)


def test_the_card_has_the_results_of_the_merge(evaluated):
    folder = run(evaluated, "write_model_card", card={"license": "apache-2.0", "base_model": "a/b"})
    card = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "a/b")
    table = evaluation().benchmark_table.set_index(["variant", "benchmark"])
    found = {(r.dataset_type, r.metric_type): r.metric_value for r in card.data.eval_results}
    expected = table.loc[("co_merge", "unsafe"), "ip"]
    assert found["unsafe", "inappropriate_probability"] == pytest.approx(expected)
    assert found["neutral", "fid"] == 102.0
    assert expert_digest(evaluated.load("fitted_co_merge")) in card.text
    assert '"num_inference_steps": 2, "guidance_scale": 3.0' in card.text


def test_the_card_tells_the_recipes_of_the_merged_experts_only(evaluated):
    text = (run(evaluated, "write_model_card") / "README.md").read_text()
    for seed, category in enumerate(CATEGORIES):
        assert (f'"steps": {10 + seed}}}' in text) == (category in MERGED)


def test_another_strength_is_in_the_weights_in_their_header_and_in_the_card(evaluated):
    folder = run(evaluated, strength=0.5)
    merge = evaluated.load("fitted_co_merge")
    half = load_adapter(folder / "pytorch_lora_weights.safetensors")
    for name, layer in merge.layers.items():
        torch.testing.assert_close(half.layers[name].delta(), 0.5 * layer.delta())
    assert half.metadata == merge.metadata | {"export_strength": "0.5"}
    fused = draw(DiffusionPipeline.from_pretrained(folder / "aligned_pipeline"))
    np.testing.assert_allclose(draw(stock(folder)), fused, atol=1e-4)
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None
    assert "not those of this file" in card.text and "strength 0.5;" in card.text


def test_at_strength_1_the_file_is_that_of_the_merge(evaluated):
    folder = run(evaluated, "copy_lora")
    merge = Path(evaluated["fitted_co_merge"]._filepath)
    assert (folder / "pytorch_lora_weights.safetensors").read_bytes() == merge.read_bytes()


def test_without_an_evaluation_the_weights_are_there_and_the_table_is_named(catalog):
    with pytest.raises(DatasetError, match=r"benchmark_table"):
        run(catalog)
    assert {path.name for path in folder_of(catalog).iterdir()} == WEIGHTS


def test_a_merge_that_was_made_after_the_evaluation_gets_no_card(evaluated):
    merge = evaluated.load("fitted_co_merge")
    evaluated["fitted_co_merge"].save(merge.scaled(1.01))
    with pytest.raises(ValueError, match=r"measured 'fitted_co_merge' with weights .*again"):
        run(evaluated, "write_model_card")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"base_model": "data/01_raw/base_model"}, "no id on the hub"),
        ({"licence": "mit"}, "did you mean 'license'"),
        ({"name": ""}, "at least 1 character"),
    ],
)
def test_parameters_of_the_card_are_checked(catalog, card, message):
    with pytest.raises(ParameterValidationError, match=message):
        run(catalog, card=card)
