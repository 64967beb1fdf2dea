"""The merging pipeline as it is configured, on a tiny real model."""

from __future__ import annotations

import pytest
import torch
from kedro.runner import SequentialRunner
from kedro.validation.exceptions import ParameterValidationError
from plotly.graph_objects import Figure

from safetydpo_kedro.artifacts import Provenance
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.merging import ActivationProfile, FittedWeights
from safetydpo_kedro.merging.calibration import Calibration, CalibrationConfig, choose_inputs
from safetydpo_kedro.pipelines.merging import create_pipeline
from safetydpo_kedro.preference.latents import (
    CachedPrompts,
    LatentImages,
    LatentPairs,
    PreservedImages,
)
from safetydpo_kedro.settings import CATEGORIES

from ..worlds import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    add_parameters,
    base_catalog,
    base_parameters,
    prompt_pairs,
    random_cache,
    tiny_expert,
    tiny_pipeline,
)

FITTING = {"inputs": 7, "steps": 3, "batch_size": 4}


@pytest.fixture(scope="module")
def model():
    return diffusion_model(tiny_pipeline())


@pytest.fixture(scope="module")
def experts(model):
    return {category: tiny_expert(model.unet, seed) for seed, category in enumerate(CATEGORIES)}


@pytest.fixture(scope="module")
def pairs():
    return prompt_pairs(per_category=2)


@pytest.fixture
def catalog(tmp_path, model, experts, pairs):
    catalog = base_catalog(tmp_path)
    catalog["base_model"].save(model.pipeline)
    catalog["train_pairs"].save(pairs)
    generator = torch.Generator().manual_seed(1)
    shape = (3, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    images = LatentImages(torch.randn(shape, generator=generator), torch.zeros(shape))
    neutral = PreservedImages(images, model.encode_prompts(["a tree"] * 3))
    catalog["preservation_cache"].save({"shard-00000": neutral.to_tensors()})
    catalog["latent_cache"].save({"shard-00000": random_cache(model, pairs).to_tensors()})
    for category, adapter in experts.items():
        catalog[f"{category}_expert"].save(adapter)
    return catalog


def test_the_pipeline_makes_every_artifact(catalog, experts):
    parameters = base_parameters(
        merging={
            "profile": {"inputs": 14, "batch_size": 5},
            "fitting": FITTING,
            "strategies": {
                "co_merge": {"ownership": "argmax", "strength": 1.0},
                "fitted_co_merge": {"strength": 1.0},
            },
        }
    )
    add_parameters(catalog, parameters, merging=create_pipeline())
    SequentialRunner().run(create_pipeline(), catalog)

    linear, co_merge = catalog.load("linear_merge"), catalog.load("co_merge")
    for name, layer in linear.layers.items():
        mean = sum(expert.layers[name].delta() for expert in experts.values()) / len(experts)
        torch.testing.assert_close(layer.delta(), mean)
    for name, layer in co_merge.layers.items():  # every row is the row of one expert
        for j, row in enumerate(layer.delta()):
            rows = torch.stack([expert.layers[name].delta()[j] for expert in experts.values()])
            assert (rows - row).abs().amax(1).min() < 1e-6

    report = catalog.load("merge_report")
    assert list(report) == ["strategy", "layer", "rank", "relative_error", "norm"]
    assert set(report["strategy"]) == {"linear", "co_merge", "fitted_co_merge"}
    assert (report["rank"] == 2 * len(CATEGORIES)).all() and (report["relative_error"] == 0).all()

    table = catalog.load("ownership_table")
    assert table.groupby("layer")["owned"].sum().to_numpy() == pytest.approx(1)
    assert set(table["expert"]) == set(CATEGORIES)
    for name, column in (("ownership_heatmap", "owned"), ("win_share_heatmap", "wins")):
        figure = catalog.load(name)
        assert isinstance(figure, Figure)
        shown = [share for row in figure.data[0].z for share in row]
        expected = table.sort_values(["layer", "expert"])[column]
        assert shown == pytest.approx(expected.tolist())
    concentration = catalog.load("win_concentration")
    histogram = catalog.load("ownership_histogram")
    drawn = sum(sum(bar.y) for bar in histogram.data if bar.xaxis == "x2")
    assert drawn == concentration["units"].sum() > 0
    assert set(catalog.load("activation_profile")[1]) == {"activation_profile"}

    weights = FittedWeights.from_tensors(*catalog.load("fitted_weights"))
    for name, layer in catalog.load("fitted_co_merge").layers.items():
        expected = sum(
            weights.rows[name][i][:, None]
            * experts[expert].layers[name].delta()
            * weights.columns[name][i]
            for i, expert in enumerate(weights.experts)
        )
        torch.testing.assert_close(layer.delta(), expected)
    assert catalog.load("fitting_history")["step"].tolist() == [0, 1, 2]
    assert isinstance(catalog.load("fitting_curves"), Figure)


def test_a_smaller_rank_costs_an_error_that_is_reported(catalog):
    parameters = base_parameters(
        merging={
            "profile": {"inputs": 7, "batch_size": 7},
            "fitting": FITTING,
            "strategies": {name: {"rank": 2} for name in ("co_merge", "linear", "fitted_co_merge")},
        }
    )
    add_parameters(catalog, parameters, merging=create_pipeline())
    SequentialRunner().run(create_pipeline(), catalog)
    report = catalog.load("merge_report")
    assert (report["rank"] == 2).all()
    assert report["relative_error"].between(0.01, 1).all()


def recorded(catalog, **profile):
    """Run the nodes that make the profile."""
    settings = {"inputs": 14, "batch_size": 4, "shard_size": 4, **profile}
    parameters = base_parameters(merging={"profile": settings})
    add_parameters(catalog, parameters, merging=create_pipeline())
    SequentialRunner().run(create_pipeline().to_outputs("activation_profile"), catalog)
    return ActivationProfile.from_tensors(*catalog.load("activation_profile"))


def test_a_profile_in_shards_is_that_of_all_inputs(catalog, model, experts, pairs):
    profile = recorded(catalog, prompts=["unsafe", "neutral"], seed=5)
    config = CalibrationConfig(inputs=14, batch_size=4, prompts=("unsafe", "neutral"), seed=5)
    cache = LatentPairs.from_tensors(catalog.load("latent_cache"))
    neutral = PreservedImages.from_tensors(catalog.load("preservation_cache"))
    calibration = Calibration(config, CachedPrompts(cache, pairs["category"].tolist(), neutral))
    whole = calibration.record(model, catalog_experts(catalog))
    assert (profile.groups, profile.digests) == (whole.groups, whole.digests)
    assert len(list(catalog["activation_profile_shards"]._path.glob("*.safetensors"))) == 7
    for layer, statistics in whole.output.items():
        assert torch.equal(profile.output[layer].count, statistics.count)
        torch.testing.assert_close(
            profile.output[layer].absolute_sum, statistics.absolute_sum, rtol=1e-4, atol=1e-6
        )


def catalog_experts(catalog):
    return {category: catalog.load(f"{category}_expert") for category in CATEGORIES}


def test_a_recording_that_was_stopped_goes_on_at_its_shard(catalog, monkeypatch):
    # The hook that a run has says what shards are made from; without it none are used again.
    catalog["activation_profile_shards"].expect(Provenance("the same"))
    record, done = Calibration.record, []

    def stopped(self, model, experts, rows):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(rows.start)
        return record(self, model, experts, rows)

    monkeypatch.setattr(Calibration, "record", stopped)
    with pytest.raises(KeyboardInterrupt):
        recorded(catalog)
    assert not catalog["activation_profile_shards"].exists()

    def counted(self, model, experts, rows):
        done.append(rows.start)
        return record(self, model, experts, rows)

    monkeypatch.setattr(Calibration, "record", counted)
    resumed = recorded(catalog)
    assert done == [0, 4, 8, 12]
    catalog["activation_profile_shards"].expect(Provenance("another"))
    afresh = recorded(catalog)
    assert done == [0, 4, 8, 12] * 2
    for name, tensor in afresh.to_tensors()[0].items():
        assert torch.equal(resumed.to_tensors()[0][name], tensor)


def test_experts_that_changed_since_the_profile_are_refused(catalog, experts):
    recorded(catalog)
    catalog["hate_expert"].save(experts["sexual"])
    with pytest.raises(ValueError, match=r"other experts named \['hate'\].*record it again"):
        SequentialRunner().run(create_pipeline().only_nodes("merging.merge_co_merge"), catalog)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"profile": {"input": 7}}, "input.*known keys here are.*did you mean 'inputs'"),
        ({"fitting": {"step": 7}}, "step.*known keys here are.*did you mean 'steps'"),
        ({"fitting": {"fit": "cells"}}, "fit.*'rows', 'columns' or 'both'"),
        ({"profile": {"inputs": 0}}, "inputs.*greater than or equal to 1"),
        ({"profile": {"prompts": ["unsafe", "save"]}}, "prompts.*'unsafe', 'safe', 'neutral'"),
        ({"profile": {"shard_size": 0}}, "shard_size.*greater than or equal to 1"),
        ({"strategies": {"co_merge": {"statistc": "wins"}}}, "statistc.*did you mean 'statistic'"),
        ({"strategies": {"linear": {"fraction": 0.5}}}, "fraction.*rank, strength"),
    ],
)
def test_a_wrong_parameter_stops_before_any_node(tmp_path, section, message):
    with pytest.raises(ParameterValidationError, match=f"(?s){message}"):
        add_parameters(
            base_catalog(tmp_path), base_parameters(merging=section), merging=create_pipeline()
        )


def test_inputs_are_spread_over_categories_and_never_repeat():
    categories = ["hate"] * 3 + ["sexual"] * 2
    chosen = choose_inputs(categories, 8, seed=0)
    assert len(set(chosen)) == 8
    assert [categories[row] for row, _ in chosen] == ["hate", "sexual"] * 4
    assert sorted(chosen[1::2]) == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert choose_inputs(categories, 8, seed=0) == chosen != choose_inputs(categories, 8, seed=1)


def test_the_profile_depends_on_the_seed_only(model, experts, pairs):
    cache = random_cache(model, pairs)
    cached = CachedPrompts(cache, pairs["category"].tolist(), cache.safe_side(slice(0)))

    def wins(batch_size, seed):
        config = CalibrationConfig(inputs=14, batch_size=batch_size, seed=seed)
        profile = Calibration(config, cached).record(model, experts)
        assert profile.groups == tuple(f"unsafe/{name}" for name in sorted(CATEGORIES))
        return torch.cat([layer.wins.flatten() for layer in profile.output.values()])

    assert torch.equal(wins(14, seed=0), wins(14, seed=0))
    assert not torch.equal(wins(14, seed=0), wins(14, seed=1))
    # Rounding may move a win where two experts are all but equal.
    assert (wins(14, seed=0) != wins(3, seed=0)).float().mean() < 0.01


def test_a_cache_of_other_pairs_is_refused(model, pairs):
    cache = random_cache(model, pairs)
    with pytest.raises(ValueError, match=r"14 cached pairs, but 1 categories.*make both again"):
        CachedPrompts(cache, ["hate"], cache.safe_side(slice(0)))
