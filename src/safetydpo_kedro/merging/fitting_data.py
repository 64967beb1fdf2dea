"""What a merge is fitted to: each expert's answers on its category, the base's on the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.merging.calibration import NEUTRAL_ITEMS, choose_inputs
from safetydpo_kedro.preference.latents import CachedPrompts, LatentImages
from safetydpo_kedro.preference.noise import keyed_draws


@dataclass(frozen=True)
class Answers:
    """N inputs of the UNet and what a teacher predicts for them.

    Attributes:
        noisy: float32 ``[N, C, h, w]``, noised latents.
        timesteps: int64 ``[N]``.
        conditioning: N rows.
        targets: float32 ``[N, C, h, w]``, the teacher's prediction.
    """

    noisy: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    targets: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    @classmethod
    def join(cls, parts: Sequence[Answers]) -> Answers:
        """Several sets behind each other."""
        return cls(
            torch.cat([part.noisy for part in parts]),
            torch.cat([part.timesteps for part in parts]),
            Conditioning.join(*(part.conditioning for part in parts)),
            torch.cat([part.targets for part in parts]),
        )


@dataclass(frozen=True)
class FittingData:
    """Inputs on which the merge shall act, and inputs that it shall leave alone.

    Attributes:
        unsafe: unsafe prompts; the teacher is the expert of their category.
        preserved: safe and neutral prompts; the teacher is the base model.
    """

    unsafe: Answers
    preserved: Answers


def fitting_data(
    model: DiffusionModel,
    experts: Mapping[str, LoraAdapter],
    cached: CachedPrompts,
    *,
    inputs: int,
    batch_size: int,
    seed: int,
) -> FittingData:
    """Ask every expert about noised unsafe images of its category, and the base about the rest.

    Args:
        model: the base model.
        experts: category → the adapter that shall answer for it; categories without one are left
            out, and one adapter may answer for several.
        cached: pairs and neutral images.
        inputs: unsafe inputs, split evenly over the categories; as many safe ones, and half as
            many neutral ones.
        batch_size: inputs in one forward.
        seed: of the choice of inputs, the noise and the timesteps.

    Raises:
        ValueError: an expert's category has no pair.
    """
    pairs, categories, neutral = cached.pairs, cached.categories, cached.neutral
    lacking = sorted(set(experts) - set(categories))
    if lacking:
        raise ValueError(
            f"no training pairs of {lacking}, but experts for them: a merge is fitted to what "
            f"each expert answers on its own category; make pairs, or leave these experts out"
        )
    own = [row for row, name in enumerate(categories) if name in experts]
    plan = choose_inputs([categories[row] for row in own], inputs, seed)
    unsafe: list[Answers] = []
    safe: list[Answers] = []
    for category, expert in sorted(experts.items()):
        chosen = [(own[i], draw) for i, draw in plan if categories[own[i]] == category]
        if not chosen:
            continue
        rows, draws = torch.tensor(chosen).unbind(1)
        for parts, images, prompts, adapter in (
            (unsafe, pairs.losers, pairs.unsafe, expert),
            (safe, pairs.winners, pairs.safe, None),
        ):
            with fused(model.unet, adapter):
                parts += _ask(
                    model, images, prompts, rows, pairs.ids[rows], draws, batch_size, seed
                )
    plan = choose_inputs(["neutral"] * len(neutral), inputs // 2, seed)
    rows, draws = torch.tensor(plan).unbind(1)
    items = rows + NEUTRAL_ITEMS
    preserved = safe + _ask(
        model, neutral.images, neutral.conditioning, rows, items, draws, batch_size, seed
    )
    return FittingData(Answers.join(unsafe), Answers.join(preserved))


@torch.no_grad()
def _ask(
    model: DiffusionModel,
    images: LatentImages,
    prompts: Conditioning,
    rows: Tensor,
    items: Tensor,
    draws: Tensor,
    batch_size: int,
    seed: int,
) -> list[Answers]:
    """Predictions of the model as it stands, for some rows under the noise of (item, draw)."""
    shape = images.mean.shape[1:]
    parts = []
    for some, keys, turn in zip(*(t.split(batch_size) for t in (rows, items, draws)), strict=True):
        noise = keyed_draws(seed, keys.tolist(), turn.tolist(), shape, model.train_timesteps)
        noisy = model.add_noise(images.sample(some, noise.posterior), noise.noise, noise.timesteps)
        conditioning = prompts.rows(some)
        predicted = model.predict(noisy, noise.timesteps, conditioning)
        parts.append(Answers(noisy, noise.timesteps, conditioning, predicted.float().cpu()))
    return parts
