"""Erased Stable Diffusion, ESD-u: the denoiser itself unlearns concepts.

Gandikota et al., "Erasing Concepts from Diffusion Models", ICCV 2023 (arXiv 2303.07345), section
4. A copy of the denoiser learns to predict under the concept what the frozen original would under
negative guidance. No image is needed: noised latents are sampled from the copy itself. ESD-u
trains all but the cross-attention, so that a concept is erased whatever the prompt calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from safetydpo_kedro.baselines.config import EsdConfig
from safetydpo_kedro.baselines.denoising import denoise, initial_latents
from safetydpo_kedro.baselines.families import require_stable_diffusion
from safetydpo_kedro.checkpoints import Checkpoints
from safetydpo_kedro.diffusion.adapters import checkpointed_activations
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.digests import tensors_digest
from safetydpo_kedro.progress import progress_bar
from safetydpo_kedro.threads import builds_models

CROSS_ATTENTION = ".attn2."


def esd_target(eps: Tensor, eps_c: Tensor, eta: float) -> Tensor:
    """What the erased model is to predict: ``ε*(x_t) - η [ε*(x_t, c) - ε*(x_t)]``, equation 7.

    The weights of the two predictions sum to 1, so that for models that predict velocity the same
    line leads to the same target.

    Args:
        eps: prediction of the frozen model without a prompt, ``[N, C, h, w]``.
        eps_c: under the concept.
        eta: negative guidance η.
    """
    return eps - eta * (eps_c - eps)


def train_esd(
    model: DiffusionModel,
    concepts: Sequence[str],
    config: EsdConfig,
    progress: bool = True,
    folder: Path | None = None,
) -> dict[str, Tensor]:
    """Erase concepts by training; several are erased at once, each row of a batch draws one.

    The model is left as it was. A float32 copy of its denoiser is trained beside it: of Stable
    Diffusion 1.5 that takes 3.2 GiB for the copy and 9.1 GiB for gradients and Adam's moments of
    its 816 M trained weights, beside the activations.

    Args:
        model: of the Stable Diffusion family.
        concepts: texts that name them.
        config: how to train.
        progress: show a progress bar.
        folder: of checkpoints, of this training alone: a killed one goes on from the last, and
            the caller removes it once the weights are on disk. None keeps none.

    Returns:
        Trained weights, named as in the denoiser's ``state_dict()``, on the CPU and in the
        precision of the model. Equal seeds give equal weights on the same machine.

    Raises:
        ValueError: the model is of another family, there are no concepts, or the loss is not
            finite.
        ChangedIdentityError: the folder holds checkpoints of another training.
    """
    require_stable_diffusion(model, "esd_u")
    if not concepts:
        raise ValueError("ESD has nothing to erase: 0 concepts, expected at least 1")
    erased = _trainable_copy(model)
    trained = {name: p for name, p in erased.named_parameters() if p.requires_grad}
    texts, nothing = model.encode_prompts(concepts), model.unconditional()
    optimizer = torch.optim.Adam(trained.values(), lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    checkpoints = _checkpoints(model, concepts, config, folder) if folder else None
    start = 0
    if checkpoints and (found := checkpoints.restore({"unet": erased}, optimizer)):
        start = found.step
        generator.set_state(found.state["generator"])
    with checkpointed_activations(erased, config.gradient_checkpointing):
        look = {"desc": "ESD-u", "unit": "step", "disable": not progress, "initial": start}
        for step in (bar := progress_bar(range(start, config.steps), total=config.steps, **look)):
            rows = torch.randint(len(concepts), (config.batch_size,), generator=generator)
            text = texts.rows(rows.to(model.device))
            loss = _loss(model, erased, text, nothing.rows(0 * rows), config, generator)
            if not loss.isfinite():
                raise ValueError(
                    f"ESD-u: the loss is {loss.item()} at step {step}; lower learning_rate = "
                    f"{config.learning_rate} or negative_guidance = {config.negative_guidance}"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            if checkpoints and (step + 1) % config.checkpoints.every == 0:
                state = {"generator": generator.get_state()}
                checkpoints.save(step + 1, {"unet": erased}, optimizer, state=state)
    model.pipeline.maybe_free_model_hooks()
    return {name: p.detach().to("cpu", model.dtype) for name, p in trained.items()}


def _checkpoints(
    model: DiffusionModel, concepts: Sequence[str], config: EsdConfig, folder: Path
) -> Checkpoints:
    """Checkpoints of this training; those of another one refuse."""
    identity = {
        "esd_u": config,
        "concepts": list(concepts),
        "base model": tensors_digest(model.unet.state_dict()),
    }
    remedy = f"set evaluation.baselines.esd_u.checkpoints.resume to false, or delete {folder}"
    checkpoints = Checkpoints(folder, identity, config.checkpoints.keep, remedy)
    if not config.checkpoints.resume:
        checkpoints.clear()
    return checkpoints


@builds_models
def _trainable_copy(model: DiffusionModel) -> nn.Module:
    """The denoiser again, in float32, with gradients outside the cross-attention."""
    with torch.random.fork_rng(devices=[]):  # it draws weights that are replaced at once
        copy = type(model.unet).from_config(model.unet.config)
    copy.load_state_dict(model.unet.state_dict())  # which casts to the float32 of the copy
    copy.to(model.device, memory_format=torch.channels_last).eval()
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(CROSS_ATTENTION not in name)
    return copy


def _loss(
    model: DiffusionModel,
    erased: nn.Module,
    text: Conditioning,
    nothing: Conditioning,
    config: EsdConfig,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared distance to the target, at one random step of a sampling under the concept."""
    with torch.no_grad():
        noisy, timesteps = _noisy(model, erased, text, nothing, config, generator)
        both = model.predict(
            noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), Conditioning.join(nothing, text)
        )
        target = esd_target(*both.float().chunk(2), config.negative_guidance)
    return functional.mse_loss(_predict(erased, noisy, timesteps, text), target)


def _noisy(
    model: DiffusionModel,
    erased: nn.Module,
    text: Conditioning,
    nothing: Conditioning,
    config: EsdConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Latents x_t ``[N, C, h, w]`` that the copy samples under the concept, and t ``[N]``."""
    both = Conditioning.join(nothing, text)

    def guided(noisy: Tensor, timesteps: Tensor, step: int) -> Tensor:
        twice = _predict(erased, noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), both)
        eps, eps_c = twice.chunk(2)
        return eps + config.start_guidance * (eps_c - eps)

    generators = [generator] * len(text)  # one after the other they draw from the same stream
    latents = initial_latents(model, generators, config.sampling_steps, torch.float32)
    scheduler = model.pipeline.scheduler
    stop = int(torch.randint(len(scheduler.timesteps), (), generator=generator))
    latents = denoise(model, latents, guided, generators, stop)
    t = scheduler.timesteps[stop]
    return scheduler.scale_model_input(latents, t), t.expand(len(text))


def _predict(unet: nn.Module, noisy: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
    return unet(noisy, timesteps, text["embedding"].float()).sample
