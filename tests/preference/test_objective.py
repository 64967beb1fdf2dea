"""One step's loss: its terms, its parts, and what it asks of the reference."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from safetydpo_kedro.diffusion.adapters import trainable_adapter
from safetydpo_kedro.parameters import (
    ExpertTrainingParameters,
    LoraParameters,
    NoiseParameters,
    PreservationParameters,
)
from safetydpo_kedro.preference.objective import Objective
from safetydpo_kedro.preference.reference_scores import score_pairs

from .test_trainer import PARAMETERS, changed

NOISE = NoiseParameters(seed=3, draws=2, caption_dropout=0.3)


@pytest.fixture
def weights(model):
    """An adapter that is some way from the reference."""
    with trainable_adapter(model.unet, PARAMETERS.lora, seed=0) as weights:
        with torch.no_grad():  # B = 0 would hide A's gradient
            for weight in weights:
                weight.add_(0.02)
        yield weights


def gradient(objective, weights, parts, step=0):
    """Loss of a step and the gradient of all weights, computed in some number of parts."""
    total = 0.0
    for part in objective.parts(step, parts):
        loss, _ = objective.loss(objective.inputs(part))
        loss.backward()
        total += loss.item()
    flat = torch.cat([weight.grad.flatten() for weight in weights])
    for weight in weights:
        weight.grad = None
    return total, flat


def loss_of(model, data, parameters, noise=NOISE, step=1):
    objective = Objective(model, data, noise, parameters)
    loss, metrics = objective.loss(objective.inputs(objective.parts(step, 1)[0]))
    return loss.item(), {name: value.item() for name, value in metrics.items()}


def test_a_fresh_adapter_has_loss_ln_2(model, data):
    reference_recipe = ExpertTrainingParameters(batch_size=4, lora=LoraParameters(rank=2))
    with trainable_adapter(model.unet, reference_recipe.lora, seed=0):
        loss, metrics = loss_of(model, data, reference_recipe)
    assert loss == pytest.approx(math.log(2), abs=1e-7)
    assert metrics["winner_minus_reference"] == metrics["loser_minus_reference"] == 0


def test_gradient_reaches_every_lora_weight_and_nothing_else(model, data, weights):
    objective = Objective(model, data, NOISE, PARAMETERS)
    objective.loss(objective.inputs(objective.parts(0, 1)[0]))[0].backward()
    parts = (model.unet, model.pipeline.vae, model.pipeline.text_encoder)
    with_gradient = {id(p) for part in parts for p in part.parameters() if p.grad is not None}
    assert with_gradient == {id(weight) for weight in weights}
    assert all(weight.grad.abs().max() > 0 for weight in weights)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_step_in_parts_is_the_same_step(model, data, weights, parts):
    objective = Objective(model, data, NOISE, PARAMETERS)
    whole, in_parts = (gradient(objective, weights, count) for count in (1, parts))
    assert whole[0] == pytest.approx(in_parts[0], rel=1e-5)
    torch.testing.assert_close(whole[1], in_parts[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("redirection", [0.0, 1.0])
@pytest.mark.parametrize("preservation", [0.0, 1.0])
@pytest.mark.parametrize("shared", [True, False])
def test_known_scores_of_the_reference_change_nothing(
    model, data, redirection, preservation, shared
):
    noise = NOISE.model_copy(update={"shared": shared})
    scores = score_pairs(model, data.pairs, noise, batch_size=3)
    parameters = changed(
        redirection_weight=redirection,
        preservation=PreservationParameters(weight=preservation, rows=3),
    )
    with trainable_adapter(model.unet, PARAMETERS.lora, seed=0) as weights:
        with torch.no_grad():
            for weight in weights:
                weight.add_(0.02)
        results = [
            gradient(Objective(model, known, noise, parameters), weights, 1, step)
            for known in (data, replace(data, scores=scores))
            for step in (0, 5)
        ]
    for asked, known in zip(results[:2], results[2:], strict=True):
        assert asked[0] == pytest.approx(known[0], rel=1e-4)
        torch.testing.assert_close(asked[1], known[1], rtol=1e-3, atol=1e-6)


def test_with_known_scores_a_step_of_the_reference_recipe_runs_the_unet_once(model, data):
    scores = score_pairs(model, data.pairs, NOISE, batch_size=3)
    parameters = ExpertTrainingParameters(batch_size=4, lora=LoraParameters(rank=2))
    calls = []
    handle = model.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        with trainable_adapter(model.unet, parameters.lora, seed=0):
            loss_of(model, replace(data, scores=scores), parameters)
            known = len(calls)
            loss_of(model, data, parameters)
    finally:
        handle.remove()
    assert (known, len(calls) - known) == (1, 2)


def test_min_snr_weighs_late_timesteps_up_against_early_ones(model, data, weights):
    """With a γ beyond every SNR all weights are 1; with a small one errors can only shrink."""
    _, plain = loss_of(model, data, PARAMETERS)
    _, loose = loss_of(model, data, changed(min_snr_gamma=1e9))
    _, tight = loss_of(model, data, changed(min_snr_gamma=0.1))
    assert loose == pytest.approx(plain, rel=1e-5)
    assert tight["winner_error"] < plain["winner_error"]


@pytest.mark.parametrize("loss_type", ["hinge", "ipo"])
def test_other_losses_are_trained_too(model, data, weights, loss_type):
    loss, metrics = loss_of(model, data, changed(loss_type=loss_type))
    assert metrics["preference_loss"] != pytest.approx(math.log(2), abs=1e-3)
    assert math.isfinite(loss)


def test_sft_is_the_winners_error_under_the_unsafe_prompt(model, data, weights):
    parameters = ExpertTrainingParameters(
        strategy="sft", batch_size=4, lora=PARAMETERS.lora, supervised_weight=0.0
    )
    loss, metrics = loss_of(model, data, parameters)
    assert loss == metrics["winner_error"]
    objective = Objective(model, data, NOISE, parameters)
    assert all(part.rows.unsafe.all() for part in objective.parts(0, 2))
