"""What P4D and UnlearnDiffAtk share, against a literal definition, for every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.architectures import ARCHITECTURES, random_pipeline
from safetydpo_kedro.attacks.registry import find_attack, parse_attack
from safetydpo_kedro.attacks.scene import Goal, Scene, Victim
from safetydpo_kedro.attacks.white_box import (
    GoalImage,
    Noised,
    closeness,
    prediction_loss,
    spaced_timesteps,
)
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.diffusion.tokens import token_table
from safetydpo_kedro.parameters import SamplingParameters
from tests.attacks.random_search import random_search

SETTINGS = {
    "p4d": {"length": 4, "steps": 12, "check_every": 100, "batch": 2, "draws": 8,
            "judging_draws": 4},
    "unlearn_diff_atk": {"places": 3, "timesteps": 3, "iterations": 4, "batch": 2,
                         "learning_rate": 0.2, "judging_draws": 4},
}  # fmt: skip


@pytest.fixture(params=list(ARCHITECTURES), scope="module")
def scene(request):
    model = diffusion_model(random_pipeline(request.param, tiny=True))
    return Scene(model, Victim(model), SamplingParameters(steps=1))


@pytest.fixture(scope="module")
def goal(scene):
    side = scene.base.unet.config.sample_size * scene.base.pipeline.vae_scale_factor
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Goal("1", "knife on a blue background", 3, safe_prompt="a spoon", image=image)


def test_timesteps_are_the_middles_of_equal_stretches():
    assert spaced_timesteps(1000, 50)[:3] == [10, 30, 50] and spaced_timesteps(1000, 50)[-1] == 990
    assert spaced_timesteps(1000, 1) == [500]


def test_worth_is_minus_the_mean_squared_error_of_the_denoiser(scene, goal):
    model, noised = scene.base, GoalImage.of(goal, scene).judging(5)
    prompts = ["a spoon on red", "green green"]
    expected = []
    for prompt in prompts:
        errors = []
        for i in range(5):
            t = noised.timesteps[i : i + 1]
            with torch.no_grad():
                found = model.predict(noised.noisy[i : i + 1], t, model.encode_prompts([prompt]))
            errors.append((found.double() - noised.target[i]).square().mean().item())
        expected.append(-np.mean(errors))
    for size in (1, 3, 16):
        small = Scene(scene.base, scene.victim, scene.sampling, denoising_batch=size)
        worth = closeness(small, noised)
        found = [worth(scene.vocabulary.encode(prompt)[None]).item() for prompt in prompts]
        assert found == pytest.approx(expected, rel=1e-4)


def test_noise_follows_the_schedule_and_its_target(scene, goal):
    noised = GoalImage.of(goal, scene).noised(4, [0, 1], [100, 900])
    again = GoalImage.of(goal, scene).noised(4, [1], [900])
    torch.testing.assert_close(noised.noisy[1:], again.noisy)
    alphas = scene.base.noise_schedule.alphas_cumprod[[100, 900]].view(2, 1, 1, 1)
    latents = scene.latents(goal).cpu()
    noise = (noised.noisy - alphas.sqrt() * latents) / (1 - alphas).sqrt()
    if scene.base.noise_schedule.config.prediction_type == "epsilon":
        expected = noise
    else:
        expected = alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    torch.testing.assert_close(noised.target, expected, rtol=1e-4, atol=1e-3)


def test_the_scaled_gradient_is_the_gradient(scene, goal):
    model, noised = scene.base, GoalImage.of(goal, scene).noised(0, range(2))
    ids = scene.vocabulary.encode(goal.prompt)[None]
    embeddings = scene.table[ids].requires_grad_()
    (found,) = torch.autograd.grad(prediction_loss(model, ids, embeddings, noised), embeddings)
    conditioning = model.encode_tokens(ids.repeat(2, 1), embeddings.repeat(2, 1, 1))
    predicted = model.predict(noised.noisy, noised.timesteps, conditioning)
    plain = (predicted - noised.target).square().mean()
    (expected,) = torch.autograd.grad(plain, embeddings)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=float(expected.abs().max()) * 1e-3)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_gradients_survive_half_precision(precision):
    def gradient(dtype, factor):
        model = diffusion_model(random_pipeline("sd15", tiny=True).to(dtype=dtype))
        ids = torch.tensor([[300, 301, 302]])
        generator = torch.Generator().manual_seed(0)
        noisy, target = torch.randn(2, 1, 4, 8, 8, generator=generator)
        noised = Noised(noisy, torch.tensor([500]), target)
        with torch.no_grad():
            own = model.predict(noisy, noised.timesteps, model.encode_tokens(ids)).float()
        noised = noised._replace(target=own + factor * target)
        embeddings = token_table(model.text_towers)[ids].requires_grad_()
        loss = prediction_loss(model, ids, embeddings, noised)
        assert loss.dtype == torch.float32
        return torch.autograd.grad(loss, embeddings)[0].flatten()

    found, expected = gradient(precision, 1e-3), gradient(torch.float32, 1e-3)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.999
    assert found.norm().item() == pytest.approx(expected.norm().item(), rel=0.05)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_family_can_be_searched(scene, goal, name):
    attack, config = parse_attack(name, SETTINGS[name])
    found = attack.search(goal, scene, config, seed=1)
    assert found.worth > found.start and found.spent.gradients == 12
    assert found == attack.search(goal, scene, config, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("p4d", {"placement": "n", "length": 6, "steps": 60, "check_every": 100, "draws": 64,
                 "judging_draws": 4}),
        ("p4d", {"placement": "k", "every": 2, "steps": 60, "check_every": 100, "draws": 64,
                 "judging_draws": 4}),
        ("unlearn_diff_atk", {"places": 4, "timesteps": 12, "iterations": 5,
                              "learning_rate": 0.05}),
    ],
)  # fmt: skip
def test_it_raises_its_objective_and_beats_luck_of_equal_budget(weak_scene, goals, name, settings):
    attack, config = parse_attack(name, settings | {"batch": 2})
    unasked = Scene(weak_scene.base, weak_scene.victim, weak_scene.sampling)  # goes to the end
    better, raised = [], []
    for seed in range(3):
        for goal in goals[seed * 2 : seed * 2 + 2]:
            found = attack.search(goal, unasked, config, seed)
            # In denoiser rows, a gradient of a row counting as three.
            rows = found.spent.evaluations * config.judging_draws + 3 * 60 * config.batch
            assert found.spent.budget == round(rows / config.judging_draws)
            generator = torch.Generator().manual_seed(seed)
            problem = attack.problem(goal, unasked, config, generator)
            with unasked.victim.patch():
                lucky = random_search(problem, found.spent.budget, generator, batch=16)
                better.append(found.worth - float(problem.evaluate(lucky[None])[0]))
            raised.append(found.worth - found.start)
    assert min(raised) >= 0 and np.median(raised) > 0
    assert np.mean(better) > 0.002 and np.median(better) > 0


@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_search_stops_at_the_first_image_that_answers(weak_scene, goals, name):
    attack, config = parse_attack(
        name, SETTINGS[name] | ({"check_every": 2} if name == "p4d" else {})
    )
    looks = []

    def harmful(images):
        looks.append(len(images))
        return np.array([len(looks) == 2])

    scene = Scene(weak_scene.base, weak_scene.victim, weak_scene.sampling, harmful)
    found = attack.search(goals[0], scene, config, seed=0)
    assert found.spent.images == len(looks) == 2
    assert found.spent.gradients < 12


@pytest.mark.parametrize("name", list(SETTINGS))
def test_another_order_of_goals_finds_the_same(weak_scene, goals, name):
    attack, config = parse_attack(name, SETTINGS[name])
    alone = attack.search(goals[1], weak_scene, config, seed=2)
    attack.search(goals[0], weak_scene, config, seed=2)
    assert attack.search(goals[1], weak_scene, config, seed=2) == alone


@pytest.mark.parametrize("name", list(SETTINGS))
def test_goals_without_an_image_are_refused(scene, name):
    attack, config = parse_attack(name, SETTINGS[name])
    with pytest.raises(ValueError, match="'7' has no image"):
        attack.search(Goal("7", "knife", 0), scene, config, seed=0)
    assert find_attack(name).sees == "weights"
