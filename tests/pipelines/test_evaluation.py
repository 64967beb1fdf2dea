"""The evaluation pipeline as it is configured, on tiny real models and the real detector."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.runner import SequentialRunner
from kedro.validation.exceptions import ParameterValidationError
from PIL import Image

from safetydpo_kedro.datasets import ExternalModelsDataset
from safetydpo_kedro.datasets.freshness import expected_provenances
from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.hooks import FreshnessHooks, SummaryHooks
from safetydpo_kedro.hooks.parameters import check_keys
from safetydpo_kedro.images import decode_images
from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.parameters import DrawingParameters, SamplingParameters
from safetydpo_kedro.pipelines.evaluation import create_pipeline
from safetydpo_kedro.pipelines.evaluation.baselines import choose_concepts
from safetydpo_kedro.pipelines.evaluation.drawing import draw_images
from safetydpo_kedro.pipelines.evaluation.nodes import collect_benchmarks
from safetydpo_kedro.pipelines.evaluation.parameters import (
    BenchmarksParameters,
    ComparisonsParameters,
    ConceptsParameters,
)
from safetydpo_kedro.pipelines.evaluation.reports import compare_variants
from safetydpo_kedro.settings import CATEGORIES, EXPERTS, VARIANTS

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
        "drawing": {"sampling": {"steps": 1, "guidance_scale": 2.0}, "shard_size": SHARD},
        "checker": {"checker": checker, "arguments": {"threshold": 300.0}},
        "bootstrap": {"resamples": 10},
        "kid": {"subsets": 2, "subset_size": 3},
        "grid": {"safe": 2, "neutral": 1},
        "baselines": {"esd_u": {"steps": 1, "sampling_steps": 2}},
        "thresholds": {"q16": [0.5], "nudenet": [0.25, 0.5]},
    }


def make_world(folder):
    """A catalog with everything that an evaluation starts from."""
    catalog = base_catalog(folder)
    pipeline, (clip, config, tokenizer) = tiny_pipeline(), tiny_clip()
    catalog["base_model"].save(pipeline)
    catalog["judge_clip"].save((clip, config, tokenizer))
    prompts = torch.randn(2, config["model_cfg"]["embed_dim"])
    catalog["q16_prompts"].save({"prompts": prompts})
    catalog["train_pairs"].save(prompt_pairs())
    catalog["preservation_prompts"].save(neutral_prompts())
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
    return catalog


def evaluate(catalog, pipeline=None, **changes):
    """Run the pipeline, or a part of it, as ``--only-missing-outputs`` does."""
    settings = overrides() | changes
    parameters = base_parameters(evaluation=settings)
    parameters["evaluation"]["checker"] = settings["checker"]
    add_parameters(catalog, parameters, evaluation=create_pipeline())
    pipeline = pipeline or create_pipeline()
    FreshnessHooks().before_pipeline_run({}, pipeline, catalog)
    SequentialRunner().run(pipeline, catalog, only_missing_outputs=True)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """The catalog after a run."""
    catalog = make_world(tmp_path_factory.mktemp("evaluation"))
    evaluate(catalog)
    return catalog


def collect(take, published=None, **settings):
    return collect_benchmarks(
        BenchmarksParameters(take=take, **settings),
        prompt_pairs(2),
        neutral_prompts(),
        **(published or {}),
    )


def i2p_prompts(count=6):
    """Imported prompts with guidance scales of their own."""
    return pd.DataFrame(
        {
            "benchmark": "i2p",
            "prompt_id": [f"i2p-{i}" for i in range(count)],
            "category": "hate",
            "categories": ["hate", "hate,violence"] * (count // 2),
            "concept": "i2p",
            "prompt": [f"a picture of thing {i}" for i in range(count)],
            "seed": range(100, 100 + count),
            "guidance_scale": [7.5, 7.0] * (count // 2),
        }
    )


def test_unsafe_and_safe_prompts_of_a_pair_share_seed_and_name():
    table = collect({"unsafe": "all", "safe": "all", "neutral": "all"})
    unsafe, safe, neutral = (table[table["benchmark"] == name] for name in BENCHMARKS)
    shared = ["prompt_id", "category", "concept", "seed"]
    pd.testing.assert_frame_equal(
        unsafe[shared].reset_index(drop=True), safe[shared].reset_index(drop=True)
    )
    assert (unsafe["prompt"].to_numpy() != safe["prompt"].to_numpy()).all()
    assert len(neutral) == 3 and neutral["category"].isna().all()


def test_imported_prompts_keep_seed_and_guidance_of_their_file():
    published = {"i2p": i2p_prompts()}
    table = collect({"i2p": "all", "neutral": 2}, published)
    i2p = table[table["benchmark"] == "i2p"]
    assert i2p["guidance_scale"].tolist() == [7.0] * 3 + [7.5] * 3  # alike ones together
    assert i2p.set_index("prompt_id")["seed"].to_dict() == {f"i2p-{i}": 100 + i for i in range(6)}
    assert table["benchmark"].value_counts().to_dict() == {"i2p": 6, "neutral": 2}
    assert table.loc[table["benchmark"] == "neutral", "guidance_scale"].isna().all()
    fixed = collect({"i2p": "all"}, published, own_guidance=False)
    assert fixed["guidance_scale"].isna().all()


def test_a_part_of_a_benchmark_is_chosen_by_the_seed():
    published = {"i2p": i2p_prompts(60)}
    some = [set(collect({"i2p": 20}, published, seed=seed)["prompt_id"]) for seed in (1, 1, 2)]
    assert len(some[0]) == 20 and some[0] == some[1] != some[2]


@pytest.mark.parametrize(
    ("take", "published", "words"),
    [
        ({"i3p": "all"}, {"i2p": None}, "unknown.*i3p.*i2p"),
        ({"i2p": "all"}, {"i2p": None}, "take.i2p.*prompt_import"),
        ({"i2p": 5}, {"i2p": i2p_prompts(0)}, "take.i2p"),
        ({"unsafe": None}, {}, "nothing to evaluate"),
    ],
)
def test_benchmarks_that_are_not_there_are_a_clear_error(take, published, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        collect(take, published)


def test_baselines_erase_what_experts_forget_unless_told_otherwise():
    pairs, neutral = prompt_pairs(5), neutral_prompts()
    chosen = choose_concepts(pairs, neutral, ConceptsParameters(per_concept=2, preserved=2))
    assert len(chosen["names"]) == len(CATEGORIES) and not any("_" in n for n in chosen["names"])
    texts = dict(zip(chosen["edited"], chosen["anchors"], strict=True))
    own = pairs.set_index("unsafe_prompt")["safe_prompt"]
    assert texts == own[list(texts)].to_dict() and len(texts) <= 2 * len(CATEGORIES)
    assert set(chosen["preserved"]) == {*neutral["prompt"].head(2), *texts.values()}
    told = choose_concepts(pairs, neutral, ConceptsParameters(names=("a", "b"), anchor=""))
    assert (told["names"], told["edited"], told["anchors"]) == (["a", "b"], ["a", "b"], [""])


def test_every_variant_draws_every_prompt_with_its_adapter(catalog):
    prompts = catalog.load("evaluation_prompts")
    shard = prompts.iloc[:7]  # a shard holds one benchmark
    model = diffusion_model(tiny_pipeline())
    sampling = SamplingParameters(steps=1, guidance_scale=2.0, batch_size=64)
    drawn = {}
    for variant, adapter in (("base", None), ("hate", "hate_expert"), ("co_merge", "co_merge")):
        images = catalog.load(f"{variant}_images")
        assert images["prompt_id"].tolist() == prompts["prompt_id"].tolist()
        assert set(images["variant"]) == {variant}
        drawn[variant] = decode_images(images["image"].iloc[:7])
        with fused(model.unet, adapter and catalog.load(adapter)):
            expected = model.sample(shard["prompt"].tolist(), shard["seed"].tolist(), sampling)
        np.testing.assert_array_equal(drawn[variant], expected)
    assert (drawn["hate"] != drawn["base"]).any() and (drawn["hate"] != drawn["co_merge"]).any()


@pytest.mark.parametrize("baseline", ["sld_max", "esd_u", "uce"])
def test_baselines_draw_other_images_than_the_base_model(catalog, baseline):
    images = catalog.load("image_scores").groupby("variant")["image_sha256"].apply(set)
    assert images[baseline] != images["base"]


def test_image_scores_have_one_judged_row_per_image(catalog):
    scores = catalog.load("image_scores")
    prompts = ["benchmark", "prompt_id", "category", "categories", "concept", "prompt", "seed"]
    judged = ["q16_score", "q16_inappropriate", "nudenet_score", "nudenet_inappropriate"]
    assert list(scores) == [
        *("variant", *prompts, "guidance_scale", "weights_sha256", "image_sha256"),
        *("clip_score", "concept_correct", "drawn_as_mate"),
        *(*judged, "inappropriate"),
    ]
    assert scores["variant"].unique().tolist() == list(VARIANTS)
    assert len(scores) == len(VARIANTS) * sum(IMAGES.values())
    either = scores["q16_inappropriate"] | scores["nudenet_inappropriate"]
    assert (scores["inappropriate"] == either).all()
    raw = catalog.load("base_judgements")
    assert np.stack(raw["features"]).shape == (sum(IMAGES.values()), 16)
    assert "nudenet:FACE_MALE" in raw


def test_the_benchmark_table_has_a_row_per_variant_and_benchmark(catalog):
    table = catalog.load("benchmark_table")
    keys = [(variant, benchmark) for variant in VARIANTS for benchmark in BENCHMARKS]
    assert list(table[["variant", "benchmark"]].itertuples(index=False, name=None)) == keys
    assert table["images"].tolist() == [IMAGES[benchmark] for _, benchmark in keys]
    measured = ["ip", "ip_low", "ip_high", "fid", "kid", "clip_score"]
    assert table[measured].notna().all(axis=None)
    assert (table["concept_accuracy"] == 1).all() and (table["mate_accuracy"] == 1).all()
    text = catalog.load("benchmark_table_markdown")
    assert len([line for line in text.splitlines() if line.startswith("|")]) == len(table) + 2
    assert "images" in text.splitlines()[-1]  # the warning about few images


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
    assert set(catalog.load("paper_table").iloc[:, 0]) == set(VARIANTS)
    assert "\\toprule" in catalog.load("paper_table_latex")
    overview = catalog.load("benchmark_overview").set_index("benchmark")
    assert overview.loc["unsafe", "prompts"] == len(CATEGORIES)
    comparisons = catalog.load("comparison_table")
    assert set(comparisons["against"]) == {"base", "all_single", "fitted_co_merge"}
    assert comparisons["p_value"].between(0, 1).all()
    pairs = comparisons[["variant", "against"]].apply(frozenset, axis=1)
    assert not pd.DataFrame({"pair": pairs, "on": comparisons["benchmark"]}).duplicated().any()
    sweep = catalog.load("threshold_table")
    assert set(sweep["judge"]) == {"q16", "nudenet"}
    page = catalog.load("evaluation_report")
    hashes = catalog.load("variant_table")["weights_sha256"]
    assert page.startswith("<!") and all(digest[:8] in page for digest in hashes)


def test_the_summary_is_printed_for_runs_with_an_evaluation(catalog, capsys):
    hook = SummaryHooks()
    hook.after_pipeline_run(create_pipeline().only_nodes("evaluation.collect_benchmarks"), catalog)
    assert capsys.readouterr().out == ""
    hook.after_pipeline_run(create_pipeline(), catalog)
    out = capsys.readouterr().out
    for text in ("co_merge", "IP of base", "evaluation_report.html", "make viz", "accuracy"):
        assert text in out


def modified(catalog, *names):
    """When each file of some variants' images and judgements was written."""
    folders = [catalog[name]._path for name in names]
    return {p: p.stat().st_mtime_ns for f in folders for p in sorted(f.glob("*.parquet"))}


def some_variants(*variants):
    """The pipeline without most of the variants, so that a run of it is quick."""
    pipeline = create_pipeline()
    nodes = ["evaluation.collect_benchmarks", "evaluation.embed_references"]
    nodes += [n.name for n in pipeline.nodes if n.namespace.rpartition(".")[2] in variants]
    return pipeline.only_nodes(*nodes)


def test_a_new_benchmark_computes_only_itself(tmp_path):
    catalog, part = make_world(tmp_path), some_variants("base", "hate")
    evaluate(catalog, part)
    names = ("base_images", "base_judgements", "hate_images", "hate_judgements")
    before = modified(catalog, *names)
    catalog["i2p_prompts"].save(i2p_prompts())
    take = {"unsafe": "all", "safe": "all", "neutral": "all", "i2p": 4}
    evaluate(catalog, part, benchmarks={"take": take})
    after = modified(catalog, *names)
    assert {path: after[path] for path in before} == before
    assert {path.stem.split("-")[1] for path in set(after) - set(before)} == {"i2p"}
    images = catalog.load("hate_images")
    assert images["benchmark"].value_counts()["i2p"] == 4
    # Fewer prompts of one: only its shards are drawn again.
    evaluate(catalog, part, benchmarks={"take": take | {"i2p": 2, "unsafe": None}})
    last = modified(catalog, *names)
    assert {p.stem.split("-")[1] for p in last if last[p] != after.get(p)} == {"i2p"}
    assert len(catalog.load("base_judgements")) == IMAGES["safe"] + IMAGES["neutral"] + 2


def test_another_threshold_looks_at_no_image_again(tmp_path):
    catalog, part = make_world(tmp_path), some_variants("base")
    evaluate(catalog, part)
    before = modified(catalog, "base_images", "base_judgements")
    evaluate(catalog, part, verdicts={"q16": {"threshold": 0.9}})
    assert modified(catalog, "base_images", "base_judgements") == before


def test_leaving_one_variant_out_makes_no_other_stale(catalog):
    def expected(**skip):
        settings = base_parameters(evaluation={"skip": skip})
        fresh = base_catalog(catalog["base_model"]._filepath.parents[2])
        add_parameters(fresh, settings, evaluation=create_pipeline())
        found = expected_provenances(create_pipeline(), fresh)
        return {name: found[name].fingerprint for name in ("esd_u_weights", "hate_images")}

    assert expected() == expected(sld_max=True)
    assert expected(esd_u=True)["hate_images"] == expected()["hate_images"]


def test_only_variants_can_be_left_out_or_compared_with(catalog):
    parameters = base_parameters(evaluation={"skip": {"esdu": True}})
    read = {f"evaluation.{name}" for name in parameters["evaluation"] if name != "skip"}
    read |= {f"evaluation.skip.{variant}" for variant in VARIANTS}
    with pytest.raises(ValueError, match=r"evaluation\.skip\.esdu.*did you mean 'esd_u'"):
        check_keys("evaluation", parameters["evaluation"], read)
    comparisons = ComparisonsParameters(against=("base", "co-merge"))
    with pytest.raises(ValueError, match=r"against: \['co-merge'\] are no variants.*co_merge"):
        compare_variants(catalog.load("image_scores"), comparisons, BootstrapConfig())


def test_a_variant_that_is_left_out_is_in_no_table(tmp_path):
    catalog = make_world(tmp_path)
    kept = ("base", "linear")
    evaluate(catalog, skip={variant: variant not in kept for variant in VARIANTS})
    assert catalog.load("benchmark_table")["variant"].unique().tolist() == list(kept)
    assert catalog.load("esd_u_images").empty
    with Image.open(catalog["qualitative_grid"]._filepath) as grid:
        assert grid.height < 600


def test_models_of_others_are_variants_of_their_own(tmp_path):
    catalog = make_world(tmp_path)
    theirs = catalog["hate_expert"]._filepath
    catalog["external_models"] = ExternalModelsDataset(
        models={"theirs": {"lora": str(theirs)}, "weaker": {"lora": str(theirs), "strength": 0.1}}
    )
    part = some_variants("external", "hate")
    evaluate(catalog, part)
    drawn = catalog.load("external_images")
    assert drawn["variant"].unique().tolist() == ["theirs", "weaker"]
    own = catalog.load("hate_images")["image_sha256"].tolist()
    hashes = drawn.groupby("variant")["image_sha256"].apply(list)
    assert hashes["theirs"] == own != hashes["weaker"]
    before = modified(catalog, "external_images")
    catalog["external_models"] = ExternalModelsDataset(models={"theirs": {"lora": str(theirs)}})
    evaluate(catalog, part)
    assert modified(catalog, "external_images") == before
    assert set(catalog.load("external_images")["variant"]) == {"theirs"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"verdicts": {"nudity": {"treshold": 0.3}}}, "nudity.treshold.*did you mean 'threshold'"),
        ({"benchmarks": {"take": {"unsafe": 0}}}, "take.unsafe.*0"),
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
        draw_images(diffusion_model(tiny_pipeline()), prompts, parameters, False, variant="base")
    assert "schoolgirl" not in str(error.value)
