"""Fitted weights do what they are fitted for, and only they change."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.merging import FittedWeights, merge
from safetydpo_kedro.merging.fitting import FittingConfig, WeightedLayer, _added, fit_weights
from safetydpo_kedro.merging.fitting_data import Answers, FittingData, fitting_data
from safetydpo_kedro.preference.latents import CachedPrompts, LatentImages, PreservedImages

from ..worlds import LATENT_CHANNELS, LATENT_SIZE, prompt_pairs, random_cache, tiny_pipeline
from .small_experts import SHAPES, dense, make_experts, plain_weights

MODULES = ("attn1.to_q", "attn2.to_v", "conv1", "conv_out")  # conv_out and conv1 are convolutions


@pytest.fixture(scope="module")
def model():
    return diffusion_model(tiny_pipeline())


def unet_expert(model, seed, rank=2, size=0.3):
    """A random expert of linear layers and convolutions."""
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in model.unet.named_modules()
        if name.endswith(MODULES)
    }
    adapter = random_adapter(shapes, rank, torch.Generator().manual_seed(seed))
    return adapter.scaled(size)


@pytest.fixture(scope="module")
def experts(model):
    return {"hate": unet_expert(model, 1), "sexual": unet_expert(model, 2, rank=3)}


def random_weights(experts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    plain = plain_weights(experts)
    sides = (
        {name: torch.rand(side.shape, generator=generator) for name, side in tensors.items()}
        for tensors in (plain.rows, plain.columns)
    )
    return FittedWeights(plain.experts, *sides)


@pytest.fixture(scope="module")
def data(model, experts):
    pairs = prompt_pairs(per_category=3)
    pairs = pairs[pairs["category"].isin(experts)]
    cache = random_cache(model, pairs)
    generator = torch.Generator().manual_seed(3)
    shape = (4, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    images = LatentImages(torch.randn(shape, generator=generator), torch.zeros(shape))
    neutral = PreservedImages(images, model.encode_prompts(["a tree"] * 4))
    return fitting_data(
        model,
        experts,
        CachedPrompts(cache, pairs["category"].tolist(), neutral),
        inputs=12,
        batch_size=5,
        seed=0,
    )


def test_the_merge_is_its_definition():
    experts = make_experts({"hate": 2, "sexual": 3, "violence": 1})
    weights = random_weights(experts)
    merged = merge("fitted_co_merge", experts, {"strength": 0.5}, fitted=weights).adapter
    for layer in SHAPES:
        expected = sum(
            weights.rows[layer][i].double()[:, None]
            * dense(experts[name], layer)
            * weights.columns[layer][i].double()
            for i, name in enumerate(weights.experts)
        )
        torch.testing.assert_close(dense(merged, layer), 0.5 * expected)


def test_what_is_fitted_is_what_is_merged(model, experts, data):
    """The model with weighted layers predicts what it predicts with the merge fused into it."""
    weights = random_weights(experts)
    layers = {name: WeightedLayer(experts, name, model.device) for name in weights.rows}
    assert {layer.kernel for layer in layers.values()} == {None, (3, 3)}
    for name, layer in layers.items():
        layer.rows, layer.columns = weights.rows[name], weights.columns[name]
    some = data.unsafe
    before = model.predict(some.noisy, some.timesteps, some.conditioning)
    with torch.no_grad(), _added(model.unet, layers):
        live = model.predict(some.noisy, some.timesteps, some.conditioning)
    merged = merge("fitted_co_merge", experts, fitted=weights).adapter
    with fused(model.unet, merged):
        expected = model.predict(some.noisy, some.timesteps, some.conditioning)
    torch.testing.assert_close(live, expected, rtol=1e-4, atol=1e-4)
    assert (expected - before).abs().max() > 0.01
    assert torch.equal(model.predict(some.noisy, some.timesteps, some.conditioning), before)


def test_teachers_are_the_experts_and_the_base(model, experts, data):
    assert (len(data.unsafe), len(data.preserved)) == (12, 12 + 6)
    base = model.predict(
        data.preserved.noisy, data.preserved.timesteps, data.preserved.conditioning
    )
    torch.testing.assert_close(data.preserved.targets, base, rtol=1e-4, atol=1e-4)
    by_expert = []
    for adapter in experts.values():
        with fused(model.unet, adapter):
            answers = model.predict(
                data.unsafe.noisy, data.unsafe.timesteps, data.unsafe.conditioning
            )
        by_expert.append((answers - data.unsafe.targets).abs().amax((1, 2, 3)) < 1e-4)
    assert torch.equal(by_expert[0], ~by_expert[1]) and by_expert[0].sum() == 6


def test_known_weights_are_found(model, experts, data):
    """If the teacher is a merge with certain weights, the fit comes close to what it does."""
    teacher = merge("fitted_co_merge", experts, fitted=random_weights(experts)).adapter

    def taught(part):
        with fused(model.unet, teacher):
            targets = model.predict(part.noisy, part.timesteps, part.conditioning)
        return Answers(part.noisy, part.timesteps, part.conditioning, targets)

    taught_data = FittingData(taught(data.unsafe), taught(data.preserved))
    config = FittingConfig(steps=120, batch_size=16, learning_rate=0.05)
    _, history = fit_weights(model, experts, taught_data, config)
    assert list(history) == ["step", "loss", "unsafe_error", "preserved_error"]
    assert history["loss"].tail(10).mean() < 0.1 * history["loss"].head(3).mean()


def test_same_seed_same_bytes_and_another_seed_not(model, experts, data):
    def rows(**changes):
        weights, _ = fit_weights(model, experts, data, FittingConfig(steps=4, **changes))
        return torch.cat([side.flatten() for side in weights.rows.values()])

    assert torch.equal(rows(), rows())
    assert not torch.equal(rows(), rows(seed=1))
    assert not torch.equal(rows(), rows(preservation_weight=0.0))
    assert (rows(fit="columns") == 1).all()


def test_fixed_experts_keep_their_weights(model, experts, data):
    weights, _ = fit_weights(model, experts, data, FittingConfig(steps=3), fixed=["hate"])
    assert weights.experts == ("hate", "sexual")
    for sides in (weights.rows, weights.columns):
        assert all((side[0] == 1).all() for side in sides.values())
        assert any((side[1] != 1).any() for side in sides.values())
    for fixed in (["hat"], ["hate", "sexual"]):
        with pytest.raises(ValueError, match="name some of them, not all"):
            fit_weights(model, experts, data, FittingConfig(steps=1), fixed=fixed)


def test_a_broken_teacher_stops_the_fit(model, experts, data):
    broken = Answers(
        data.unsafe.noisy,
        data.unsafe.timesteps,
        data.unsafe.conditioning,
        data.unsafe.targets * float("nan"),
    )
    with pytest.raises(ValueError, match=r"the loss is nan at step 0.*learning_rate = 0\.03"):
        fit_weights(model, experts, FittingData(broken, data.preserved), FittingConfig())


def test_an_expert_without_pairs_is_named(model, experts):
    pairs = prompt_pairs(per_category=1)
    pairs = pairs[pairs["category"] == "hate"]
    cache = random_cache(model, pairs)
    with pytest.raises(ValueError, match=r"no training pairs of \['sexual'\]"):
        fitting_data(
            model,
            experts,
            CachedPrompts(cache, ["hate"], cache.safe_side(slice(None))),
            inputs=2,
            batch_size=1,
            seed=0,
        )


def test_weights_survive_a_file():
    weights = random_weights(make_experts({"a": 1, "b": 2}))
    again = FittedWeights.from_tensors(*weights.to_tensors())
    assert again.experts == weights.experts
    for side in ("rows", "columns"):
        for name, tensor in getattr(weights, side).items():
            assert torch.equal(getattr(again, side)[name], tensor)


def test_files_and_weights_of_something_else_are_refused():
    experts = make_experts({"a": 1, "b": 2})
    tensors, header = plain_weights(experts).to_tensors()
    with pytest.raises(ValueError, match="not fitted weights"):
        FittedWeights.from_tensors(tensors, {})
    with pytest.raises(ValueError, match=r"unknown tensor 'other\.x'"):
        FittedWeights.from_tensors(tensors | {"other.x": torch.ones(1)}, header)
    half = {key: value for key, value in tensors.items() if key != "rows.block.to_q"}
    with pytest.raises(ValueError, match=r"'block\.to_q' lack rows or columns"):
        FittedWeights.from_tensors(half, header)
    with pytest.raises(ValueError, match="needs fitted weights"):
        merge("fitted_co_merge", experts)
    with pytest.raises(ValueError, match=r"fitted for experts \['a', 'b'\], not for \['a'\]"):
        merge("fitted_co_merge", {"a": experts["a"]}, fitted=plain_weights(experts))
    other = {"x": LoraAdapter({"block.to_q": LoraLayer(torch.ones(1, 4), torch.ones(5, 1))})}
    wrong = plain_weights({"x": make_experts({"a": 1})["a"]})
    with pytest.raises(ValueError, match=r"ΔW has shape \(5, 4\), but weights.*\(6, 4\)"):
        merge("fitted_co_merge", other, fitted=wrong)


def test_history_is_a_table(model, experts, data):
    _, history = fit_weights(model, experts, data, FittingConfig(steps=2, batch_size=2))
    assert isinstance(history, pd.DataFrame) and history["step"].tolist() == [0, 1]
