"""The sampler of a Stable Diffusion pipeline, step by step, with a prediction of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.model import DiffusionModel

Predict = Callable[[Tensor, Tensor, int], Tensor]


def initial_latents(
    model: DiffusionModel,
    generators: Sequence[torch.Generator],
    steps: int,
    dtype: torch.dtype,
    resolution: int | None = None,
) -> Tensor:
    """Pure noise, as the pipeline itself draws it, and the sampler made ready for ``steps`` steps.

    Args:
        model: of the Stable Diffusion family.
        generators: N, one per image; on the CPU, so that images do not depend on the device.
        steps: of the sampler; how strong its first noise is depends on them.
        dtype: of the latents.
        resolution: side of the images in pixels, None: the model's own.

    Returns:
        ``[N, C, h, w]`` on the model's device.
    """
    pipeline = model.pipeline
    pipeline.scheduler.set_timesteps(steps, device=model.device)
    size = resolution or model.unet.config.sample_size * pipeline.vae_scale_factor
    channels = model.unet.config.in_channels
    count = len(generators)
    return pipeline.prepare_latents(
        count, channels, size, size, dtype, model.device, list(generators)
    )


def denoise(
    model: DiffusionModel,
    latents: Tensor,
    predict: Predict,
    generators: Sequence[torch.Generator],
    stop: int | None = None,
) -> Tensor:
    """Run the sampler over its timesteps, which :func:`initial_latents` has set.

    Args:
        model: whose sampler runs.
        latents: of :func:`initial_latents`.
        predict: latents in the scale that the denoiser reads ``[N, C, h, w]``, timesteps ``[N]``
            and number of the step → prediction, in the scheduler's prediction type.
        generators: N, for samplers that draw noise in every step.
        stop: number of the step to stop before; None runs all.

    Returns:
        Latents ``[N, C, h, w]`` in the sampler's own scale.
    """
    scheduler = model.pipeline.scheduler
    options = model.pipeline.prepare_extra_step_kwargs(list(generators), 0.0)
    for step, t in enumerate(scheduler.timesteps[:stop]):
        noisy = scheduler.scale_model_input(latents, t)
        prediction = predict(noisy, t.expand(len(latents)), step)
        latents = scheduler.step(prediction, t, latents, **options, return_dict=False)[0]
    return latents
