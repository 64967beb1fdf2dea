"""ESD-u: its target, what it trains, and that it leaves the model alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from safetydpo_kedro.baselines import esd
from safetydpo_kedro.baselines.config import EsdConfig
from safetydpo_kedro.baselines.esd import esd_target, train_esd
from safetydpo_kedro.diffusion.weights import replaced

CONCEPTS = ["gun", "knife"]
CONFIG = EsdConfig(steps=3, learning_rate=1e-3, sampling_steps=3, batch_size=2)


def state(model):
    return {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def error(model, weights, eta, rows=16, concept="gun"):
    """Mean squared distance to the target, written out, of a model with weights replaced."""
    generator = torch.Generator().manual_seed(7)
    noisy = torch.randn(rows, 4, 8, 8, generator=generator)
    timesteps = torch.randint(1000, (rows,), generator=generator)
    every = torch.zeros(rows, dtype=torch.long)
    text, nothing = model.encode_prompts([concept]).rows(every), model.unconditional().rows(every)
    with torch.no_grad():
        eps, eps_c = (model.predict(noisy, timesteps, c) for c in (nothing, text))
        target = (1 + eta) * eps - eta * eps_c
        with replaced(model.unet, weights):
            return functional.mse_loss(model.predict(noisy, timesteps, text), target).item()


def test_target_by_hand():
    eps, eps_c = torch.tensor([1.0, -2.0]), torch.tensor([1.5, -1.0])
    assert esd_target(eps, eps_c, 2.0).tolist() == [0.0, -4.0]
    assert torch.equal(esd_target(eps, eps_c, 0.0), eps)


def test_target_of_velocities_is_that_of_noise():
    """With α² + σ² = 1: ε = α v + σ x."""
    v, v_c, x = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator())
    alpha, sigma = 0.6, 0.8
    noise = esd_target(alpha * v + sigma * x, alpha * v_c + sigma * x, 1.7)
    torch.testing.assert_close(noise, alpha * esd_target(v, v_c, 1.7) + sigma * x)


def test_all_but_the_cross_attention_is_trained(model):
    before = state(model)
    weights = train_esd(model, CONCEPTS, CONFIG, progress=False)
    assert weights.keys() == {name for name in before if ".attn2." not in name}
    assert any(".attn2." in name for name in before)
    assert all(not torch.equal(weights[name], before[name]) for name in weights)


def test_the_model_is_left_as_it_was(model):
    before = state(model)
    train_esd(model, CONCEPTS, CONFIG, progress=False)
    assert_same(state(model), before)
    assert not any(p.requires_grad or p.grad is not None for p in model.unet.parameters())


def test_the_model_is_left_as_it_was_by_an_exception(model, monkeypatch):
    before, random = state(model), torch.get_rng_state()

    def fail(*args):
        raise RuntimeError("interrupted")

    monkeypatch.setattr(esd, "esd_target", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        train_esd(model, CONCEPTS, CONFIG, progress=False)
    assert_same(state(model), before)
    assert torch.equal(torch.get_rng_state(), random)


def test_training_approaches_the_target(model):
    config = EsdConfig(
        steps=60, learning_rate=3e-4, negative_guidance=20, sampling_steps=4, batch_size=8
    )
    weights = train_esd(model, ["gun"], config, progress=False)
    assert error(model, weights, 20) < 0.7 * error(model, {}, 20)


def test_equal_seeds_give_equal_weights(model):
    first = train_esd(model, CONCEPTS, CONFIG, progress=False)
    assert_same(train_esd(model, CONCEPTS, CONFIG, progress=False), first)
    other = train_esd(model, CONCEPTS, CONFIG.model_copy(update={"seed": 1}), progress=False)
    assert not torch.equal(other["conv_in.weight"], first["conv_in.weight"])


def test_checkpointed_activations_change_nothing_but_rounding(model):
    plain = train_esd(model, CONCEPTS, CONFIG, progress=False)
    config = CONFIG.model_copy(update={"gradient_checkpointing": True})
    again = train_esd(model, CONCEPTS, config, progress=False)
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_latents_are_sampled_under_the_concept_as_the_pipeline_samples(model, seed, monkeypatch):
    """The first x_t, which the copy draws before it is trained, is the stock pipeline's."""
    seen = []
    predict = model.predict

    def watch(noisy, timesteps, conditioning):
        seen.append((noisy[:1], timesteps[0].item()))
        return predict(noisy, timesteps, conditioning)

    monkeypatch.setattr(model, "predict", watch)
    config = EsdConfig(steps=1, sampling_steps=3, start_guidance=3.0, seed=seed)
    train_esd(model, ["gun"], config, progress=False)
    (noisy, t), *others = seen
    assert not others

    generator = torch.Generator().manual_seed(seed)
    torch.randint(1, (1,), generator=generator)  # of the concept
    latents = [torch.randn(1, 4, 8, 8, generator=generator)]
    model.pipeline(
        "gun",
        num_inference_steps=3,
        guidance_scale=3.0,
        latents=latents[0],
        callback_on_step_end=lambda _pipe, _i, _t, kept: latents.append(kept["latents"]) or {},
    )
    stop = model.pipeline.scheduler.timesteps.tolist().index(t)
    torch.testing.assert_close(noisy, latents[stop], rtol=1e-4, atol=1e-4)


def test_every_step_of_the_sampler_is_trained(model, monkeypatch):
    seen = []
    predict = model.predict

    def watch(noisy, timesteps, conditioning):
        seen.append(timesteps[0].item())
        return predict(noisy, timesteps, conditioning)

    monkeypatch.setattr(model, "predict", watch)
    train_esd(model, ["gun"], EsdConfig(steps=20, sampling_steps=3), progress=False)
    assert set(seen) == set(model.pipeline.scheduler.timesteps.tolist())


def test_half_precision_models_are_trained_in_float32(model):
    model.pipeline.to(torch.bfloat16)
    half = type(model)(model.pipeline)
    weights = train_esd(half, CONCEPTS, CONFIG, progress=False)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert half.unet.dtype == torch.bfloat16


def test_no_concepts_are_refused(model):
    with pytest.raises(ValueError, match="0 concepts"):
        train_esd(model, [], CONFIG, progress=False)


def test_a_loss_that_is_not_finite_is_refused(model):
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(ValueError, match=r"step \d.*learning_rate = 1e\+30"):
        train_esd(model, CONCEPTS, config, progress=False)


def test_a_killed_training_goes_on_to_the_same_weights(model, tmp_path, monkeypatch):
    config = EsdConfig(
        steps=5, learning_rate=1e-3, sampling_steps=3, checkpoints={"every": 2, "keep": 1}
    )
    whole = train_esd(model, CONCEPTS, config, progress=False)
    loss, calls = esd._loss, []

    def kill(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(esd, "_loss", kill)
    with pytest.raises(KeyboardInterrupt):
        train_esd(model, CONCEPTS, config, progress=False, folder=tmp_path / "esd_u")
    resumed = train_esd(model, CONCEPTS, config, progress=False, folder=tmp_path / "esd_u")
    assert len(calls) == 4 + 3  # steps 3, 4 and 5
    assert_same(resumed, whole)
    with pytest.raises(ValueError, match="concepts"):
        train_esd(model, ["gun"], config, progress=False, folder=tmp_path / "esd_u")
