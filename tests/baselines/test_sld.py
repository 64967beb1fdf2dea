"""Safe Latent Diffusion against the paper's equations, and against plain sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.baselines.config import SLD_PRESETS, SldConfig
from safetydpo_kedro.baselines.sld import safety_guidance, sample_safely
from safetydpo_kedro.parameters import SamplingParameters

PROMPTS = ["gun on a blue background", "drawing of cat over grey", "a red picture of spoon"]
SEEDS = [3, 4, 5]
SAMPLING = SamplingParameters(steps=4, guidance_scale=3.0, batch_size=2)
STRONG = SldConfig(
    concept=("gun",), guidance_scale=50, warmup_steps=1, threshold=0.05, momentum_scale=0.5
)
finite = st.floats(-3, 3)


def reference(predictions, config):
    """Equations 4 to 8 for one latent value over all steps, in plain Python."""
    nu, guidance = 0.0, []
    for step, (eps, eps_p, eps_s) in enumerate(predictions):
        phi = config.guidance_scale * (eps_p - eps_s)
        mu = min(1.0, abs(phi)) if eps_p - eps_s < config.threshold else 0.0
        gamma = mu * (eps_s - eps) + config.momentum_scale * nu
        nu = config.momentum_beta * nu + (1 - config.momentum_beta) * gamma
        guidance.append(0.0 if step < config.warmup_steps else gamma)
    return guidance


@given(
    st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=6),
    st.builds(
        SldConfig,
        guidance_scale=st.floats(0, 10),
        warmup_steps=st.integers(0, 4),
        threshold=st.floats(-1, 1),
        momentum_scale=st.floats(0, 1),
        momentum_beta=st.floats(0, 0.9),
    ),
)
def test_guidance_is_that_of_the_equations(predictions, config):
    nu, found = torch.zeros(1, dtype=torch.float64), []
    for step, values in enumerate(predictions):
        eps = [torch.tensor([value], dtype=torch.float64) for value in values]
        gamma, nu = safety_guidance(*eps, nu, step, config)
        found.append(gamma.item())
    for value, expected in zip(found, reference(predictions, config), strict=True):
        assert math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-12)


def test_momentum_builds_up_during_the_warm_up():
    eps, eps_p, eps_s = torch.zeros(1), torch.zeros(1), torch.ones(1)
    config = SldConfig(
        guidance_scale=10, warmup_steps=1, threshold=0, momentum_scale=0.5, momentum_beta=0.5
    )
    first, nu = safety_guidance(eps, eps_p, eps_s, torch.zeros(1), 0, config)
    second, _ = safety_guidance(eps, eps_p, eps_s, nu, 1, config)
    assert (first.item(), nu.item(), second.item()) == (0.0, 0.5, 1.25)


@pytest.mark.parametrize(
    "config",
    [
        SldConfig(concept=("gun",), guidance_scale=0, warmup_steps=0),
        SldConfig(concept=("gun",), warmup_steps=SAMPLING.steps),
        SldConfig(concept=("gun",), warmup_steps=0, threshold=-1e9),
    ],
    ids=["no scale", "all warm-up", "nothing below the threshold"],
)
@pytest.mark.parametrize("scale", [3.0, 1.0, 0.0])
@pytest.mark.parametrize(
    "scheduler", [None, DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler], ids=str
)
def test_without_safety_guidance_images_are_those_of_plain_sampling(
    model, config, scale, scheduler
):
    if scheduler is not None:
        model.pipeline.scheduler = scheduler.from_config(model.pipeline.scheduler.config)
    sampling = SAMPLING.model_copy(update={"guidance_scale": scale})
    expected = model.sample(PROMPTS, SEEDS, sampling)
    found = sample_safely(model, PROMPTS, SEEDS, sampling, config)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_guidance_changes_images_of_every_prediction_type(model, prediction):
    config = model.pipeline.scheduler.config
    model.pipeline.scheduler = DDIMScheduler.from_config(config, prediction_type=prediction)
    plain = model.sample(PROMPTS, SEEDS, SAMPLING)
    safe = sample_safely(model, PROMPTS, SEEDS, SAMPLING, STRONG)
    assert np.abs(safe.astype(int) - plain).max() > 1


def test_an_image_does_not_depend_on_its_neighbours(model):
    together = sample_safely(model, PROMPTS, SEEDS, SAMPLING, STRONG)
    alone = [
        sample_safely(model, [prompt], [seed], SAMPLING, STRONG)
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    assert np.abs(together.astype(int) - np.concatenate(alone)).max() <= 1


def test_one_step_of_a_guided_image_is_equation_3(model, monkeypatch):
    """What the sampler is given, against float64 arithmetic on the denoiser's three answers."""
    asked, given = [], []
    predict, step = model.predict, model.pipeline.scheduler.step

    def asking(noisy, timesteps, conditioning):
        asked.append((predict(noisy, timesteps, conditioning), conditioning))
        return asked[-1][0]

    def stepping(prediction, *args, **options):
        given.append(prediction)
        return step(prediction, *args, **options)

    monkeypatch.setattr(model, "predict", asking)
    monkeypatch.setattr(model.pipeline.scheduler, "step", stepping)
    config = STRONG.model_copy(update={"warmup_steps": 0, "concept": ("gun", "knife")})
    sample_safely(model, PROMPTS[:1], SEEDS[:1], SAMPLING, config)
    mean = model.encode_prompts(["gun", "knife"])["embedding"].mean(0)
    torch.testing.assert_close(asked[0][1]["embedding"][2], mean)
    values = [answer.double().flatten(1).T.tolist() for answer, _ in asked]
    for i in range(len(values[0])):
        guidance = reference([answers[i] for answers in values], config)
        for answers, gamma, prediction in zip(values, guidance, given, strict=True):
            eps, eps_p, _ = answers[i]
            expected = eps + SAMPLING.guidance_scale * (eps_p - eps - gamma)
            assert prediction.flatten()[i].item() == pytest.approx(expected, abs=1e-4)


def test_more_of_the_paper_changes_more(model):
    plain = model.sample(PROMPTS, SEEDS, SAMPLING).astype(int)
    distances = [
        np.abs(sample_safely(model, PROMPTS, SEEDS, SAMPLING, config) - plain).mean()
        for config in (
            SldConfig(concept=("gun",), **SLD_PRESETS["medium"] | {"warmup_steps": 2}),
            SldConfig(concept=("gun",), **SLD_PRESETS["max"]),
        )
    ]
    assert 0 < distances[0] < distances[1]


def test_size_of_the_images_is_that_asked_for(model):
    sampling = SAMPLING.model_copy(update={"resolution": 48})
    assert sample_safely(model, PROMPTS, SEEDS, sampling, STRONG).shape == (3, 48, 48, 3)


@pytest.mark.parametrize(("prompts", "seeds"), [([], []), (["gun"], [1, 2])])
def test_prompts_and_seeds_that_do_not_match_are_refused(model, prompts, seeds):
    with pytest.raises(ValueError, match=f"{len(prompts)} prompts, {len(seeds)} seeds"):
        sample_safely(model, prompts, seeds, SAMPLING, STRONG)
