"""Calibration inputs are the ones that the settings name, in any parts, for any experts."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.merging import ActivationProfile, ActivationRecorder, merge
from safetydpo_kedro.merging.calibration import (
    NEUTRAL_ITEMS,
    Calibration,
    CalibrationConfig,
    choose_inputs,
)
from safetydpo_kedro.merging.profile_parts import extend_profile, from_shards, to_shard
from safetydpo_kedro.preference.latents import CachedPrompts, LatentImages, PreservedImages
from safetydpo_kedro.preference.noise import keyed_draws
from safetydpo_kedro.stacked import StackedRows

from ..worlds import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    prompt_pairs,
    random_cache,
    tiny_expert,
    tiny_pipeline,
)

KINDS = ("unsafe", "safe", "neutral", "empty")
SHAPE = (LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)


@pytest.fixture(scope="module")
def model():
    return diffusion_model(tiny_pipeline())


@pytest.fixture(scope="module")
def experts(model):
    ranks = {"hate": 2, "sexual": 3, "violence": 1}
    return {name: tiny_expert(model.unet, i, rank) for i, (name, rank) in enumerate(ranks.items())}


@pytest.fixture(scope="module")
def pairs():
    table = prompt_pairs(per_category=2)
    return table[table["category"].isin(["hate", "sexual", "violence"])].reset_index(drop=True)


@pytest.fixture(scope="module")
def cache(model, pairs):
    return random_cache(model, pairs)


@pytest.fixture(scope="module")
def neutral(model):
    mean = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    prompts = model.encode_prompts(["a tree", "a house", "a boat"])
    return PreservedImages(LatentImages(mean, torch.full_like(mean, 0.1)), prompts)


@pytest.fixture
def calibration(cache, pairs, neutral):
    def make(**settings):
        config = CalibrationConfig(**{"inputs": 9, "batch_size": 3, **settings})
        return Calibration(config, CachedPrompts(cache, pairs["category"].tolist(), neutral))

    return make


def by_hand(model, experts, cache, neutral, inputs, seed, pure_noise, low, high):
    """The profile of inputs ``(kind, row, draw, group)``, one forward each."""
    groups = tuple(dict.fromkeys(group for *_, group in inputs))
    with ActivationRecorder(model.unet, experts, groups) as recorder:
        for kind, row, draw, group in inputs:
            item = row + NEUTRAL_ITEMS if kind in ("neutral", "empty") else int(cache.ids[row])
            noise = keyed_draws(seed, [item], [draw], SHAPE, high - low)
            images, prompts = {
                "unsafe": (cache.losers, cache.unsafe),
                "safe": (cache.winners, cache.safe),
                "neutral": (neutral.images, neutral.conditioning),
                "empty": (neutral.images, None),
            }[kind]
            rows, timesteps = torch.tensor([row]), noise.timesteps + low
            latents = images.mean[rows] + images.std[rows] * noise.posterior
            noisy = model.noise_schedule.add_noise(latents, noise.noise, timesteps)
            prompt = model.encode_prompts([""]) if prompts is None else prompts.rows(rows)
            recorder.label([group])
            model.predict(noise.noise if pure_noise else noisy, timesteps, prompt)
    return recorder.profile()


def assert_same(actual: ActivationProfile, expected: ActivationProfile, wins: bool = True) -> None:
    assert actual.experts == expected.experts
    for part in ("output", "inner"):
        found, wanted = getattr(actual, part), getattr(expected, part)
        assert found.keys() == wanted.keys()
        for layer, statistics in found.items():
            order = [expected.groups.index(group) for group in actual.groups]
            for name, tensor in statistics.tensors().items():
                if name != "wins":
                    torch.testing.assert_close(
                        tensor, wanted[layer].tensors()[name][order], rtol=1e-4, atol=1e-6
                    )
            # Rounding may move a win where two experts are all but equal.
            moved = statistics.wins != wanted[layer].wins[order]
            assert not wins or moved.float().mean() < 0.02


@pytest.mark.parametrize(
    ("settings", "pure_noise", "low", "high"),
    [
        ({}, False, 0, 1000),
        ({"latents": "noise"}, True, 999, 1000),
        ({"latents": "noise", "timesteps": (0.5, 1)}, True, 500, 1000),
        ({"timesteps": (20, 40)}, False, 20, 40),
    ],
)
def test_the_profile_is_that_of_the_inputs_named(
    model, experts, cache, pairs, neutral, calibration, settings, pure_noise, low, high
):
    categories = pairs["category"].tolist()
    plan = calibration(prompts=KINDS, seed=3, **settings)
    of_pairs = choose_inputs(categories, 9, 3)
    plain = choose_inputs(["neutral"] * 3, 9, 3)
    inputs = [
        (kind, row, draw, f"{kind}/{categories[row]}")
        for kind in ("unsafe", "safe")
        for row, draw in of_pairs
    ]
    inputs += [(kind, row, draw, kind) for kind in ("neutral", "empty") for row, draw in plain]
    expected = by_hand(model, experts, cache, neutral, inputs, 3, pure_noise, low, high)
    assert len(plan) == len(plan.inputs) == 36
    assert_same(plan.record(model, experts), expected)


def test_a_further_kind_does_not_change_the_others(model, experts, calibration):
    alone = calibration().record(model, experts)
    both = calibration(prompts=("safe", "unsafe")).record(model, experts)
    assert alone.groups == ("unsafe/hate", "unsafe/sexual", "unsafe/violence")
    for layer, statistics in both.output.items():
        unsafe = statistics.of_kinds(["unsafe"]).tensors()
        for name, tensor in alone.output[layer].tensors().items():
            assert torch.equal(unsafe[name], tensor)


def test_shards_add_up_to_one_recording(model, experts, calibration):
    plan = calibration(prompts=("unsafe", "neutral"))
    whole = plan.record(model, experts)
    shards = [
        to_shard(plan.record(model, experts, slice(start, start + 6))) for start in (0, 6, 12)
    ]
    for join in (torch.cat, StackedRows):
        total = from_shards({name: join([s[name] for s in shards]) for name in shards[0]})
        assert (total.groups, total.digests) == (whole.groups, whole.digests)
        assert total.calibration == whole.calibration
        for name, tensor in whole.to_tensors()[0].items():
            # Every shard ends with a batch, so that forwards are the same and wins exactly add.
            torch.testing.assert_close(total.to_tensors()[0][name], tensor, rtol=1e-12, atol=0)


def test_shards_of_other_recordings_do_not_add_up(model, experts, calibration):
    shards = [to_shard(calibration(seed=seed).record(model, experts)) for seed in (0, 1)]
    with pytest.raises(ValueError, match="different activation profiles do not add up"):
        from_shards({name: torch.cat([s[name] for s in shards]) for name in shards[0]})


def test_experts_added_later_have_the_sums_of_a_joint_recording(model, experts, calibration):
    plan = calibration(prompts=("unsafe", "safe"))
    together = plan.record(model, experts)
    first = plan.record(model, {name: experts[name] for name in ("hate", "violence")})
    extended = extend_profile(first, model, {"sexual": experts["sexual"]}, plan)
    assert_same(extended, together, wins=False)
    extended = ActivationProfile.from_tensors(*extended.to_tensors())
    extended.check_made_of(experts)
    for settings in (
        {"statistic": "mean_activation"},
        {"statistic": "mean_square", "ownership": "share"},
        {"statistic": "contrast", "ownership": "top_fraction", "groups": ["unsafe"]},
        {"statistic": "mean_activation", "granularity": "factor_row"},
    ):
        for layer, merged in merge("co_merge", experts, settings, extended).adapter.layers.items():
            joint = merge("co_merge", experts, settings, together).adapter.layers[layer]
            torch.testing.assert_close(merged.delta(), joint.delta())
    with pytest.raises(ValueError, match=r"has no wins.*record all experts at once.*mean_activ"):
        merge("co_merge", experts, {"statistic": "wins"}, extended)


def test_an_added_expert_may_adapt_other_layers(model, experts, calibration):
    plan = calibration()
    layers = list(experts["hate"].layers)
    few = {layers[0]: experts["hate"].layers[layers[0]]}
    hate = type(experts["hate"])(few)
    sexual = type(hate)({name: experts["sexual"].layers[name] for name in layers[1:]})
    extended = extend_profile(plan.record(model, {"hate": hate}), model, {"sexual": sexual}, plan)
    assert_same(extended, plan.record(model, {"hate": hate, "sexual": sexual}), wins=False)


def test_what_cannot_be_added(model, experts, calibration):
    profile = calibration().record(model, {"hate": experts["hate"]})
    with pytest.raises(ValueError, match=r"\['hate'\] are in the profile already"):
        extend_profile(profile, model, {"hate": experts["sexual"]}, calibration())
    for other in ({"seed": 5}, {"inputs": 8}, {"prompts": ("safe",)}, {"timesteps": (0, 0.5)}):
        with pytest.raises(ValueError, match="recorded on other calibration inputs"):
            extend_profile(profile, model, {"sexual": experts["sexual"]}, calibration(**other))
    # The size of a batch is not part of what was recorded.
    extend_profile(profile, model, {"sexual": experts["sexual"]}, calibration(batch_size=9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": ()}, "at least 1 item"),
        ({"prompts": ("unsafe", "unsafe")}, "name each kind once"),
        ({"prompts": ("unsave",)}, "'unsafe', 'safe', 'neutral' or 'empty'"),
        ({"timesteps": (0.5, 0.5)}, "0 <= low < high"),
        ({"timesteps": (-1, 5)}, "0 <= low < high"),
        ({"timesteps": (0.5, 500)}, "both as shares up to 1 or both as whole timesteps"),
        ({"latent": "noise"}, "did you mean 'latents'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValidationError, match=message):
        CalibrationConfig.model_validate(settings)


def test_timesteps_that_the_model_lacks():
    for timesteps in ((10, 101), (0.001, 0.002)):
        with pytest.raises(ValueError, match="but the model was trained on 100"):
            CalibrationConfig(timesteps=timesteps).timestep_range(100)


def test_prompts_without_images(cache, pairs, neutral):
    categories = pairs["category"].tolist()
    nobody = PreservedImages(
        LatentImages(neutral.images.mean[:0], neutral.images.std[:0]),
        Conditioning({"embedding": neutral.conditioning["embedding"][:0]}),
    )
    cached = CachedPrompts(cache, categories, nobody)
    assert len(Calibration(CalibrationConfig(inputs=3), cached).inputs) == 3
    with pytest.raises(ValueError, match=r"\['neutral'\] need neutral images, but there are none"):
        Calibration(CalibrationConfig(prompts=("neutral",)), cached)


def test_the_header_says_what_was_recorded(model, experts, calibration):
    (header,) = calibration().record(model, experts).to_tensors()[1].values()
    assert set(json.loads(header)) == {"experts", "groups", "digests", "calibration"}
