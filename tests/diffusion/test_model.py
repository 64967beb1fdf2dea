import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import SamplingParameters

from ..worlds import tiny_pipeline

PROMPTS = ["knife on a blue background", "a red picture of spoon", "drawing of dog over green"]


@pytest.fixture(scope="module")
def model():
    return diffusion_model(tiny_pipeline())


def test_an_image_depends_on_its_prompt_and_seed_alone(model):
    parameters = SamplingParameters(steps=2, guidance_scale=2.0, batch_size=3)
    together = model.sample(PROMPTS, [1, 2, 3], parameters)
    reversed_singly = model.sample(
        PROMPTS[::-1], [3, 2, 1], parameters.model_copy(update={"batch_size": 1})
    )
    assert together.shape == (3, 32, 32, 3)
    assert together.dtype == np.uint8
    # Kernels of different batch sizes may round differently: one grey level at most.
    difference = np.abs(together.astype(int) - reversed_singly[::-1].astype(int))
    assert difference.max() <= 1


def test_another_seed_gives_another_image(model):
    parameters = SamplingParameters(steps=2, guidance_scale=2.0)
    a, b = model.sample(PROMPTS[:1] * 2, [1, 2], parameters)
    assert not np.array_equal(a, b)


def test_every_prompt_needs_a_seed(model):
    with pytest.raises(ValueError, match="2 prompts, 1 seeds"):
        model.sample(PROMPTS[:2], [1], SamplingParameters())


def test_posterior_is_the_autoencoders_in_latent_scale(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    mean, std = model.encode_images(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    posterior = model.pipeline.vae.encode(pixels).latent_dist
    factor = model.pipeline.vae.config.scaling_factor
    torch.testing.assert_close(mean, posterior.mean * factor)
    torch.testing.assert_close(std, posterior.std * factor)


def test_decoded_latents_are_the_images_that_are_drawn(model):
    parameters = SamplingParameters(steps=2, guidance_scale=2.0)
    latents = model.pipeline(
        PROMPTS[:2],
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
        num_inference_steps=parameters.steps,
        guidance_scale=parameters.guidance_scale,
        output_type="latent",
    ).images
    drawn = model.sample(PROMPTS[:2], [1, 2], parameters)
    np.testing.assert_array_equal(model.decode_images(latents), drawn)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_recovers_the_latents(model, kind):
    """Independent check of the target: DDPM's own formula for x_0 from the prediction."""
    other = diffusion_model(tiny_pipeline())
    other.noise_schedule = DDPMScheduler.from_config(
        model.noise_schedule.config, prediction_type=kind
    )
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([10, 400, 900])
    noisy = other.add_noise(latents, noise, timesteps)
    target = other.target(latents, noise, timesteps)
    alpha = other.noise_schedule.alphas_cumprod.double()[timesteps].view(-1, 1, 1, 1)
    if kind == "epsilon":
        recovered = (noisy - (1 - alpha).sqrt() * target) / alpha.sqrt()
    else:
        recovered = alpha.sqrt() * noisy - (1 - alpha).sqrt() * target
    torch.testing.assert_close(recovered, latents, rtol=1e-4, atol=1e-4)


def test_an_unknown_prediction_type_is_an_error_that_names_it(model):
    other = diffusion_model(tiny_pipeline())
    other.noise_schedule = DDPMScheduler.from_config(
        model.noise_schedule.config, prediction_type="sample"
    )
    x = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ValueError, match="'sample'"):
        other.target(x, x, torch.tensor([1]))
