"""What attacks that see the victim's weights share: errors of its denoiser, and a look at images.

Both attacks compare what the victim predicts for noised latents of the goal's image with what it
should predict. They differ in what that is: P4D takes the unprotected model's prediction,
UnlearnDiffAtk the noise itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.preference.noise import key, keyed_draws

# Prompts are compared by the same draws in every search, whatever its own seed.
JUDGING_SEED = 0


class Noised(NamedTuple):
    """Noised latents of one image, on the CPU.

    Attributes:
        noisy: float32 ``[D, C, h, w]``, ``x_t``.
        timesteps: int64 ``[D]``.
        target: float32 ``[D, C, h, w]``, what a denoiser should predict.
    """

    noisy: Tensor
    timesteps: Tensor
    target: Tensor

    def rows(self, rows: Tensor | slice) -> Noised:
        """Some of the draws."""
        return Noised(*(part[rows] for part in self))


def spaced_timesteps(train_timesteps: int, count: int) -> list[int]:
    """Middles of ``count`` equal stretches of 0…T−1, ascending: 10, 30, … 990 for 50 of 1000."""
    return [train_timesteps * (2 * i + 1) // (2 * count) for i in range(count)]


@dataclass(frozen=True)
class GoalImage:
    """The goal's image, to be noised again and again.

    Attributes:
        model: the unprotected model, whose noise schedule counts.
        latents: float32 ``[1, C, h, w]`` on the CPU.
        item: of the keyed draws.
    """

    model: DiffusionModel
    latents: Tensor
    item: int

    @classmethod
    def of(cls, goal: Goal, scene: Scene) -> GoalImage:
        """The image of a goal, which must have one."""
        return cls(scene.base, scene.latents(goal).float().cpu(), key(goal.prompt_id))

    def noised(
        self, seed: int, numbers: Sequence[int], timesteps: Sequence[int] | None = None
    ) -> Noised:
        """Draws of noise; the target is the noise, or the velocity.

        Args:
            seed: of the draws.
            numbers: D numbers of draws; equal ones give equal noise.
            timesteps: D timesteps; None: uniform ones of the draws.
        """
        model, items = self.model, [self.item] * len(numbers)
        draws = keyed_draws(seed, items, numbers, self.latents.shape[1:], model.train_timesteps)
        chosen = draws.timesteps if timesteps is None else torch.tensor(timesteps)
        latents = self.latents.expand_as(draws.noise)
        noisy = model.add_noise(latents, draws.noise, chosen)
        return Noised(noisy, chosen, model.target(latents, draws.noise, chosen))

    def judging(self, count: int) -> Noised:
        """The draws that the worth of a prompt is the mean of: timesteps equally far apart."""
        spaced = spaced_timesteps(self.model.train_timesteps, count)
        return self.noised(JUDGING_SEED, range(count), spaced)


def prediction_errors(
    model: DiffusionModel, conditioning: Conditioning, noised: Noised, gradient_scale: float = 1
) -> Tensor:
    """Mean squared error of the denoiser for each prompt: mean over draws and latents' elements.

    Args:
        model: whose denoiser predicts, in its own precision.
        conditioning: of N prompts.
        noised: D draws.
        gradient_scale: gradients are multiplied by it before they enter the denoiser.

    Returns:
        float32 ``[N]``.
    """
    prompts, draws = len(conditioning), len(noised.timesteps)
    repeated = conditioning.rows(torch.arange(prompts).repeat_interleave(draws))
    noisy = noised.noisy.repeat(prompts, 1, 1, 1)
    predicted = model.predict(noisy, noised.timesteps.repeat(prompts), repeated).float()
    if gradient_scale != 1 and predicted.requires_grad:
        predicted.register_hook(lambda gradient: gradient * gradient_scale)
    target = noised.target.to(predicted.device).repeat(prompts, 1, 1, 1)
    return (predicted - target).square().mean(dim=(1, 2, 3)).view(prompts, draws).mean(dim=1)


def prediction_loss(
    model: DiffusionModel, ids: Tensor, embeddings: Tensor, noised: Noised
) -> Tensor:
    """:func:`prediction_errors` of prompts given as embeddings, with gradients for these.

    The mean over tens of thousands of elements makes gradients too small for half precision. Within
    the model they are those of the sum; what leaves it is divided again.

    Args:
        model: the victim, patched.
        ids: int64 ``[N, K]``, content tokens.
        embeddings: float32 ``[N, K, Σ width]``.
        noised: D draws.

    Returns:
        float32 ``[N]``.
    """
    scale = float(noised.target[0].numel())
    inner = embeddings.view_as(embeddings)
    if inner.requires_grad:
        inner.register_hook(lambda gradient: gradient / scale)
    return prediction_errors(model, model.encode_tokens(ids, inner), noised, scale)


def closeness(scene: Scene, noised: Noised) -> Callable[[Tensor], Tensor]:
    """Worth of content tokens ``[N, K]``: minus the victim's :func:`prediction_errors`.

    It never gives the denoiser more than ``scene.denoising_batch`` rows at once.
    """
    model, most, draws = scene.victim.model, scene.denoising_batch, len(noised.timesteps)

    def worth(ids: Tensor) -> Tensor:
        conditioning = model.encode_tokens(ids)
        total = torch.zeros(len(ids))
        for start in range(0, draws, most):
            part = noised.rows(slice(start, start + most))
            errors = prediction_errors(model, conditioning, part).cpu()
            total -= errors * len(part.timesteps) / draws
        return total

    return lambda ids: scene.batches(ids, max(1, most // draws), worth)


def draws_harm(goal: Goal, scene: Scene) -> Callable[[Tensor], bool] | None:
    """Whether the victim's image for content tokens ``[K]``, of the goal's seed, answers the goal.

    It is drawn for the prompt as text, as it is handed on. None: the scene has no judge.
    """
    if scene.harmful is None:
        return None

    def succeeds(ids: Tensor) -> bool:
        prompt = scene.vocabulary.decode(ids)
        images = scene.victim.draw([prompt], [goal.seed], scene.sampling)
        return bool(scene.answers(images, goal)[0])

    return succeeds


class Best:
    """The best words that a solver has come across."""

    def __init__(self) -> None:
        self.words = torch.empty(0, dtype=torch.int64)
        self.worth = -torch.inf

    def consider(self, words: Tensor, worth: float) -> None:
        """Keep words ``[k]`` if they are better than all before."""
        if worth > self.worth:
            self.words, self.worth = words, worth
