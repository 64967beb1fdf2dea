"""The world's denoiser."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from diffusers.training_utils import compute_snr
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextModel, CLIPTokenizer

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.digests import tensors_digest
from safetydpo_kedro.pictograms.captions import TEMPLATES, all_captions
from safetydpo_kedro.pictograms.clip import tokenize
from safetydpo_kedro.pictograms.parameters import UnetParameters
from safetydpo_kedro.pictograms.training import step_generator, train
from safetydpo_kedro.pictograms.world import BACKGROUNDS, concepts, draw_random, to_model_range


def noise_schedule() -> DDPMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        steps_offset=1,
    )


def sampling_schedule() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ over the same noise schedule: good images in few steps, and deterministic."""
    return DPMSolverMultistepScheduler.from_config(
        noise_schedule().config, algorithm_type="dpmsolver++", timestep_spacing="trailing"
    )


def train_unet(
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    vae: AutoencoderKL,
    parameters: UnetParameters,
    checkpoints: Path,
) -> UNet2DConditionModel:
    """Train to predict noise, with min-SNR weights (Hang et al. 2023), and average the weights."""
    optimization = parameters.optimization
    torch.manual_seed(optimization.seed)
    unet = UNet2DConditionModel(**parameters.shape)
    ema = AveragedModel(unet, multi_avg_fn=get_ema_multi_avg_fn(parameters.ema_decay))
    schedule = noise_schedule()
    mean, std, concept_ids, background_ids = _cache_latents(
        vae, parameters.images, optimization.seed
    )
    embeddings, first_caption = _cache_captions(tokenizer, encoder)
    names = torch.tensor([len(concept.names) for concept in concepts()])

    def loss(generator: torch.Generator) -> Tensor:
        n = optimization.batch_size
        rows = torch.randint(len(mean), (n,), generator=generator)
        latents = mean[rows] + std[rows] * torch.randn(mean[rows].shape, generator=generator)
        concept, background = concept_ids[rows], background_ids[rows]
        name = torch.randint(1 << 30, (n,), generator=generator) % names[concept]
        template = torch.randint(len(TEMPLATES), (n,), generator=generator)
        caption = ((first_caption[concept] + name) * len(BACKGROUNDS) + background) * len(TEMPLATES)
        dropped = torch.rand(n, generator=generator) < parameters.caption_dropout
        conditioning = embeddings[torch.where(dropped, len(embeddings) - 1, caption + template)]
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(schedule.config.num_train_timesteps, (n,), generator=generator)
        noisy = schedule.add_noise(latents, noise, timesteps)
        prediction = unet(noisy, timesteps, conditioning).sample
        snr = compute_snr(schedule, timesteps)
        weight = snr.clamp(max=parameters.min_snr_gamma) / snr
        return (weight * (prediction - noise).square().mean(dim=(1, 2, 3))).mean()

    identity = {
        "parameters": parameters,
        "tokenizer": fingerprint(tokenizer.get_vocab()),
        "text encoder": tensors_digest(encoder.state_dict()),
        "autoencoder": tensors_digest(vae.state_dict()),
    }
    train(
        "UNet",
        {"model": unet, "ema": ema},
        loss,
        optimization,
        checkpoints,
        identity,
        after_step=lambda: ema.update_parameters(unet),
    )
    unet.load_state_dict(ema.module.state_dict())
    return unet


@torch.no_grad()
def _cache_latents(
    vae: AutoencoderKL, images: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Posterior mean and deviation, concept and background of freshly drawn pictures."""
    chunks = []
    for start in range(0, images, 512):
        drawn = draw_random(min(512, images - start), step_generator(seed + 1, start))
        posterior = vae.encode(to_model_range(drawn[0])).latent_dist
        chunks.append((posterior.mean, posterior.std, drawn[1], drawn[2]))
    mean, std, concept_ids, background_ids = (
        torch.cat(column) for column in zip(*chunks, strict=True)
    )
    return mean, std, concept_ids, background_ids


@torch.no_grad()
def _cache_captions(tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> tuple[Tensor, Tensor]:
    """Embeddings of all captions and of the empty prompt (last row), and where a concept's begin.

    Row ``((first[concept] + name) * backgrounds + background) * templates + template``.
    """
    ids = tokenize(tokenizer, [*all_captions(), ""])
    embeddings = torch.cat([encoder(batch).last_hidden_state for batch in ids.split(512)])
    counts = torch.tensor([0] + [len(concept.names) for concept in concepts()])
    return embeddings, counts.cumsum(0)[:-1]
