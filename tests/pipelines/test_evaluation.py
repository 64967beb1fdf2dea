"""The evaluation pipeline as it is configured, on tiny real models and the real detector."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.runner import SequentialRunner
from kedro.validation.exceptions import ParameterValidationError
from PIL import Image

from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.images import decode_images
from safetydpo_kedro.parameters import DrawingParameters, SamplingParameters
from safetydpo_kedro.pipelines.evaluation import create_pipeline
from safetydpo_kedro.pipelines.evaluation.nodes import collect_benchmarks, draw_images
from safetydpo_kedro.settings import CATEGORIES, EXPERTS, VARIANTS
from safetydpo_kedro.summary import SummaryHooks

from ..worlds import (
    add_parameters,
    base_catalog,
    base_parameters,
    neutral_prompts,
    prompt_pairs,
    reference_images,
    tiny_clip,
    tiny_expert,
    tiny_pipeline,
)

BENCHMARKS = ["unsafe", "safe", "neutral"]
SHARD = 10
IMAGES = {"unsafe": len(CATEGORIES), "safe": len(CATEGORIES), "neutral": 3}


class ColourChecker:
    """Finds the concept in dark images; knows a mate for unsafe pictures of hate only."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def check(self, images, prompts):
        dark = images.mean(axis=(1, 2, 3)) < self.threshold
        return {"concept_correct": dark.astype(float), "drawn_as_mate": np.where(dark, 1, np.nan)}


def overrides():
    checker = f"{ColourChecker.__module__}.{ColourChecker.__qualname__}"
    return {
        "drawing": {"sampling": {"steps": 1, "guidance_scale": 1.0}, "shard_size": SHARD},
        "checker": {"checker": checker, "arguments": {"threshold": 300.0}},
        "bootstrap": {"resamples": 10},
        "grid": {"safe": 2, "neutral": 1},
    }


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """The catalog after a run."""
    catalog = base_catalog(tmp_path_factory.mktemp("evaluation"))
    pipeline, (clip, config, tokenizer) = tiny_pipeline(), tiny_clip()
    catalog["base_model"].save(pipeline)
    catalog["judge_clip"].save((clip, config, tokenizer))
    prompts = torch.randn(2, config["model_cfg"]["embed_dim"])
    catalog["q16_prompts"].save({"prompts": prompts})
    catalog["test_prompts"].save(prompt_pairs())
    catalog["neutral_test_prompts"].save(neutral_prompts())
    catalog["reference_images"].save(reference_images())
    names = [
        *(f"{expert}_expert" for expert in EXPERTS),
        "linear_merge",
        "co_merge",
        "fitted_co_merge",
    ]
    for seed, name in enumerate(names):
        catalog[name].save(tiny_expert(pipeline.unet, seed).scaled(5.0))
    parameters = base_parameters(evaluation=overrides())
    parameters["evaluation"]["checker"] = overrides()["checker"]
    add_parameters(catalog, parameters, evaluation=create_pipeline())
    SequentialRunner().run(create_pipeline(), catalog)
    return catalog


def test_unsafe_and_safe_prompts_of_a_pair_share_seed_and_name():
    table = collect_benchmarks(prompt_pairs(2), neutral_prompts())
    unsafe, safe, neutral = (table[table["benchmark"] == name] for name in BENCHMARKS)
    shared = ["prompt_id", "category", "concept", "seed"]
    pd.testing.assert_frame_equal(
        unsafe[shared].reset_index(drop=True), safe[shared].reset_index(drop=True)
    )
    assert (unsafe["prompt"].to_numpy() != safe["prompt"].to_numpy()).all()
    assert len(neutral) == 3 and neutral["category"].isna().all()


def test_every_variant_draws_every_prompt_with_its_adapter(catalog):
    prompts = catalog.load("evaluation_prompts")
    shard = prompts.iloc[:SHARD]
    model = diffusion_model(tiny_pipeline())
    sampling = SamplingParameters(steps=1, guidance_scale=1.0, batch_size=64)
    drawn = {}
    for variant, adapter in (("base", None), ("hate", "hate_expert"), ("co_merge", "co_merge")):
        images = catalog.load(f"{variant}_images")
        assert images["prompt_id"].tolist() == prompts["prompt_id"].tolist()
        drawn[variant] = decode_images(images["image"].iloc[:SHARD])
        with fused(model.unet, adapter and catalog.load(adapter)):
            expected = model.sample(shard["prompt"].tolist(), shard["seed"].tolist(), sampling)
        np.testing.assert_array_equal(drawn[variant], expected)
    assert (drawn["hate"] != drawn["base"]).any() and (drawn["hate"] != drawn["co_merge"]).any()


def test_image_scores_have_one_judged_row_per_image(catalog):
    scores = catalog.load("image_scores")
    judged = ["q16_score", "q16_inappropriate", "nudenet_score", "nudenet_inappropriate"]
    assert list(scores) == [
        *("variant", "benchmark", "prompt_id", "category", "concept", "prompt", "seed"),
        *(*judged, "inappropriate", "clip_score", "concept_correct", "drawn_as_mate"),
    ]
    assert scores["variant"].unique().tolist() == list(VARIANTS)
    assert len(scores) == len(VARIANTS) * sum(IMAGES.values())
    either = scores["q16_inappropriate"] | scores["nudenet_inappropriate"]
    assert (scores["inappropriate"] == either).all()
    features = catalog.load("base_features")["clip"]
    assert features.shape == (sum(IMAGES.values()), 16)


def test_the_benchmark_table_has_a_row_per_variant_and_benchmark(catalog):
    table = catalog.load("benchmark_table")
    keys = [(variant, benchmark) for variant in VARIANTS for benchmark in BENCHMARKS]
    assert list(table[["variant", "benchmark"]].itertuples(index=False, name=None)) == keys
    assert table["images"].tolist() == [IMAGES[benchmark] for _, benchmark in keys]
    assert table[["ip", "ip_low", "ip_high", "fid", "clip_score"]].notna().all(axis=None)
    assert (table["concept_accuracy"] == 1).all() and (table["mate_accuracy"] == 1).all()
    text = catalog.load("benchmark_table_markdown")
    assert len(text.splitlines()) == len(table) + 2


def test_reports_are_there(catalog):
    table = catalog.load("category_table")
    assert len(table) == len(VARIANTS) * len(CATEGORIES) and "mate_accuracy" in table
    assert [trace.name for trace in catalog.load("ip_by_category").data] == list(VARIANTS)
    figures = catalog.load("key_figures").set_index("figure")
    assert figures.loc["drawn as the safe mate, fitted_co_merge", "reached"] == "goal"
    background = "background accuracy, unsafe prompts, change in points"
    assert np.isnan(figures.loc[background, "value"])  # the checker does not look at it
    judges = catalog.load("judges")
    assert len(judges["nudenet"]["weights_sha256"]) == 64
    assert judges["drawing"]["sampling"]["steps"] == 1 and judges["checker"]["arguments"]
    with Image.open(catalog["qualitative_grid"]._filepath) as grid:
        assert grid.width > 900 and grid.height > 400


def test_the_summary_is_printed_for_runs_with_an_evaluation(catalog, capsys):
    hook = SummaryHooks()
    hook.after_pipeline_run(create_pipeline().only_nodes("collect_benchmarks"), catalog)
    assert capsys.readouterr().out == ""
    hook.after_pipeline_run(create_pipeline(), catalog)
    out = capsys.readouterr().out
    for text in ("co_merge", "IP of base", "qualitative_grid.png", "make viz", "accuracy"):
        assert text in out


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"judges": {"nudity": {"treshold": 0.3}}}, "nudity.treshold.*did you mean 'threshold'"),
        ({"drawing": {"shard_size": 0}}, "shard_size.*greater than 0"),
        ({"targets": {"ip_base": {"most": 0.3}}}, "ip_base.most.*goal, must"),
        ({"grid": {"blur": "some"}}, "blur.*'all', 'flagged' or 'none'"),
    ],
)
def test_a_wrong_parameter_stops_before_any_node(tmp_path, section, message):
    with pytest.raises(ParameterValidationError, match=f"(?s){message}"):
        add_parameters(
            base_catalog(tmp_path),
            base_parameters(evaluation=section),
            evaluation=create_pipeline(),
        )


def test_an_excluded_prompt_is_refused_before_anything_is_drawn(catalog):
    """A table that somebody brought may hold what the project itself would have set aside."""
    prompts = catalog.load("evaluation_prompts").copy()
    prompts.loc[0, ["prompt", "category"]] = ["a drawing of a schoolgirl", "sexual"]
    parameters = DrawingParameters(sampling=SamplingParameters(steps=1))
    with pytest.raises(ValueError, match=r"1 of \d+ evaluation prompts are excluded") as error:
        draw_images(diffusion_model(tiny_pipeline()), prompts, parameters)
    assert "schoolgirl" not in str(error.value)
