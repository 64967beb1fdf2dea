"""Safe Latent Diffusion: guidance away from a safety concept, in every step of the sampler.

Schramowski et al., "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion
Models", CVPR 2023 (arXiv 2211.05105), section 3. No weight changes, so nothing is trained; a step
costs three predictions instead of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safetydpo_kedro.baselines.config import SldConfig
from safetydpo_kedro.baselines.denoising import Predict, denoise, initial_latents
from safetydpo_kedro.baselines.families import require_stable_diffusion
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.parameters import SamplingParameters


def safety_guidance(
    eps: Tensor, eps_p: Tensor, eps_S: Tensor, nu: Tensor, step: int, config: SldConfig
) -> tuple[Tensor, Tensor]:
    """The safety guidance γ of one step, and the momentum of the next, equations 4 to 8.

    ::

        φ = s_S (ε_p - ε_S)
        μ = min(1, |φ|) where ε_p - ε_S < λ, else 0
        γ = μ (ε_S - ε) + s_m ν
        ν ← β_m ν + (1 - β_m) γ

    In the first δ steps γ does not act, but the momentum builds up. The paper prints
    ``max(1, |φ|)``; the authors' code takes the minimum, which alone makes s_S = 0 no guidance.

    Args:
        eps: prediction without a prompt, ``[N, C, h, w]``.
        eps_p: under the prompt.
        eps_S: under the safety concept.
        nu: momentum ν, zero in the first step.
        step: number of the step, from 0.
        config: s_S, δ, λ, s_m and β_m.

    Returns:
        γ, zero during the warm-up, and the next ν; both like ``eps``.
    """
    phi = config.guidance_scale * (eps_p - eps_S)
    mu = torch.where(eps_p - eps_S < config.threshold, phi.abs().clamp(max=1), 0)
    gamma = mu * (eps_S - eps) + config.momentum_scale * nu
    nu = config.momentum_beta * nu + (1 - config.momentum_beta) * gamma
    return (gamma if step >= config.warmup_steps else torch.zeros_like(gamma)), nu


@torch.no_grad()
def sample_safely(
    model: DiffusionModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: SamplingParameters,
    config: SldConfig,
) -> NDArray[np.uint8]:
    """Draw one image per prompt under safety guidance; see :meth:`DiffusionModel.sample`.

    The same seed starts from the same noise as there, and with ``guidance_scale`` 0 of ``config``
    the images are the same up to rounding. Guidance acts on what the model predicts, noise or
    velocity, as in the paper, whose models predict noise. Differences of velocities are those of
    noise divided by α_t, so the same s_S and λ act a little more strongly on them.

    Args:
        model: of the Stable Diffusion family.
        prompts: N prompts.
        seeds: N seeds.
        sampling: steps, guidance, resolution and batch size. Where its guidance is off
            (``guidance_scale`` ≤ 1), the prediction is ε_p - γ, that of guidance scale 1.
        config: of the safety guidance.

    Returns:
        uint8 ``[N, H, W, 3]``.

    Raises:
        ValueError: the model is of another family, there are no prompts, or not a seed for each.
    """
    require_stable_diffusion(model, "sld")
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(
            f"SLD needs at least one prompt and a seed for each: {len(prompts)} prompts, "
            f"{len(seeds)} seeds"
        )
    nothing, concept = model.unconditional(), _concept(model, config)
    images = []
    for start in range(0, len(prompts), sampling.batch_size):
        rows = slice(start, start + sampling.batch_size)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[rows]]
        wanted = model.encode_prompts(prompts[rows])
        every = torch.zeros(len(wanted), dtype=torch.long, device=model.device)
        conditioning = Conditioning.join(nothing.rows(every), wanted, concept.rows(every))
        latents = initial_latents(
            model, generators, sampling.steps, wanted["embedding"].dtype, sampling.resolution
        )
        predict = _guided(model, conditioning, sampling.guidance_scale, config)
        images.append(model.decode_images(denoise(model, latents, predict, generators)))
    model.pipeline.maybe_free_model_hooks()
    return np.concatenate(images)


def _concept(model: DiffusionModel, config: SldConfig) -> Conditioning:
    """Conditioning of the safety concept, one row."""
    texts = model.encode_prompts(config.concept)
    return Conditioning({name: t.mean(0, keepdim=True) for name, t in texts.tensors.items()})


def _guided(
    model: DiffusionModel, conditioning: Conditioning, scale: float, config: SldConfig
) -> Predict:
    """Equation 3, ``ε + s_g (ε_p - ε - γ)``, with the momentum kept from step to step."""
    nu: Tensor | float = 0.0

    def predict(noisy: Tensor, timesteps: Tensor, step: int) -> Tensor:
        nonlocal nu
        thrice = model.predict(noisy.repeat(3, 1, 1, 1), timesteps.repeat(3), conditioning)
        eps, eps_p, eps_S = thrice.chunk(3)
        if step == 0:
            nu = torch.zeros_like(eps)
        gamma, nu = safety_guidance(eps, eps_p, eps_S, nu, step, config)
        if scale <= 1:
            return eps_p - gamma
        return eps + scale * (eps_p - eps) - scale * gamma

    return predict
