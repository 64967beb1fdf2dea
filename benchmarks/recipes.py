"""Four ways to train the same adapter with the same preference loss.

*reference*: as Diffusion-DPO trainers do it: every step encodes images and prompts, and a second
UNet is the reference.
*diffusers*: as diffusers' DPO script does it: every step encodes images and prompts, and the
reference is the UNet without its adapter.
*project*: latents and embeddings are cached, the reference is the UNet without its adapter.
*project + scores*: the reference's errors are cached too, so a step never asks the reference.

All put winners and losers into one forward, and draw noise in the same way, so their losses can
be compared. Weights of the first two lie in memory as PyTorch makes them, as in those trainers;
the project's UNet is in channels-last order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safetydpo_kedro.diffusion.adapters import reference
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.preference.batches import training_rows
from safetydpo_kedro.preference.data import TrainingData
from safetydpo_kedro.preference.inputs import Inputs
from safetydpo_kedro.preference.latents import encode_pairs
from safetydpo_kedro.preference.noise import keyed_draws
from safetydpo_kedro.preference.objective import Objective
from safetydpo_kedro.preference.reference_scores import score_pairs

ENCODED_AT_ONCE = 8  # images, as in diffusers' script


@dataclass(frozen=True)
class Images:
    """Pairs of random images, with prompts.

    Attributes:
        winners: uint8 ``[N, H, W, 3]``.
        losers: uint8 ``[N, H, W, 3]``.
        unsafe: N prompts p_U.
        safe: N prompts p_S.
    """

    winners: np.ndarray
    losers: np.ndarray
    unsafe: list[str]
    safe: list[str]

    @classmethod
    def random(cls, resolution: int, count: int) -> Images:
        """The same at every call."""
        draw = np.random.default_rng(0).integers
        images = draw(0, 256, (2, count, resolution, resolution, 3), dtype=np.uint8)
        colours = ("red", "blue", "green", "grey")
        unsafe = [f"knife on a {colours[i % 4]} background" for i in range(count)]
        return cls(*images, unsafe, [prompt.replace("knife", "spoon") for prompt in unsafe])


class Recipe(ABC):
    """The loss of optimizer steps.

    Args:
        model: whose UNet gets an adapter later.
        images: the data set.
        noise: draws; without caption dropout.
        parameters: of the training, whose strategy is ``unsafe_prompt``.
    """

    def __init__(
        self,
        model: DiffusionModel,
        images: Images,
        noise: NoiseParameters,
        parameters: ExpertTrainingParameters,
    ) -> None:
        self.model = model
        self.images = images
        self.noise = noise
        self.parameters = parameters
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """What is done once, before training."""

    @abstractmethod
    def inputs(self, step: int) -> Inputs:
        """What the UNet reads in a step."""

    @abstractmethod
    def loss(self, inputs: Inputs) -> Tensor:
        """The preference loss, by as many forwards of the UNet as the recipe needs."""


class Project(Recipe):
    """Latents and embeddings come from a cache."""

    scored: ClassVar[bool] = False

    def prepare(self) -> None:
        """Fill the caches."""
        data, size = self.images, self.parameters.batch_size
        columns = data.winners, data.losers, data.unsafe, data.safe
        pairs = encode_pairs(self.model, *columns, ids=range(len(data.safe)), batch_size=size)
        scores = score_pairs(self.model, pairs, self.noise, size) if self.scored else None
        data = TrainingData(pairs, scores=scores)
        self.objective = Objective(self.model, data, self.noise, self.parameters)

    def inputs(self, step: int) -> Inputs:
        """See :meth:`Recipe.inputs`."""
        (part,) = self.objective.parts(step, 1)
        return self.objective.inputs(part)

    def loss(self, inputs: Inputs) -> Tensor:
        """See :meth:`Recipe.loss`."""
        return self.objective.loss(inputs)[0]


class ProjectScores(Project):
    """The reference's errors come from a cache too."""

    scored = True


class Diffusers(Recipe):
    """Images and prompts are encoded whenever they come, and the adapter is switched off."""

    def prepare(self) -> None:
        """Nothing is cached."""
        self.model.unet.to(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def inputs(self, step: int) -> Inputs:
        """See :meth:`Recipe.inputs`."""
        p, data, model = self.parameters, self.images, self.model
        rows = training_rows(
            step, p.batch_size, len(data.safe), p.strategy, self.noise.draws, p.seed
        )
        chosen = rows.pairs.numpy()
        images = np.concatenate([data.winners[chosen], data.losers[chosen]])
        starts = range(0, len(images), ENCODED_AT_ONCE)
        parts = [model.encode_images(images[start : start + ENCODED_AT_ONCE]) for start in starts]
        mean, std = (torch.cat(column) for column in zip(*parts, strict=True))
        shape, steps = mean.shape[1:], model.train_timesteps
        draws = keyed_draws(self.noise.seed, rows.pairs, rows.draws, shape, steps)
        twice = [t.repeat(2, *[1] * (t.ndim - 1)).to(model.device) for t in draws[:3]]
        posterior, noise, timesteps = twice
        latents = mean + std * posterior
        captions = model.encode_prompts([data.unsafe[i] for i in chosen])
        captions = Conditioning.join(captions, captions)
        return Inputs(
            noisy=model.add_noise(latents, noise, timesteps),
            target=model.target(latents, noise, timesteps),
            timesteps=timesteps,
            captions=captions,
            unsafe=rows.unsafe.to(model.device),
        )

    def loss(self, inputs: Inputs) -> Tensor:
        """See :meth:`Recipe.loss`."""
        predicted = predict(self.model, inputs)
        with reference(self.model.unet):
            expected = predict(self.model, inputs)
        return preference_loss(predicted, expected, inputs.target, self.parameters.beta)


class Reference(Diffusers):
    """Images and prompts are encoded whenever they come, and the reference is a second UNet."""

    def prepare(self) -> None:
        """Copy the UNet."""
        super().prepare()
        self.frozen = second_model(self.model)
        self.frozen.unet.to(memory_format=torch.contiguous_format)

    def loss(self, inputs: Inputs) -> Tensor:
        """See :meth:`Recipe.loss`."""
        return two_unet_loss(self.model, self.frozen, inputs, self.parameters.beta)


RECIPES: dict[str, type[Recipe]] = {
    "reference": Reference,
    "diffusers": Diffusers,
    "project": Project,
    "project + scores": ProjectScores,
}


def predict(model: DiffusionModel, inputs: Inputs) -> Tensor:
    """The prediction on winners and losers, ``[2B, C, h, w]``."""
    return model.predict(inputs.noisy, inputs.timesteps, inputs.captions)


def preference_loss(predicted: Tensor, expected: Tensor, target: Tensor, beta: float) -> Tensor:
    """Diffusion-DPO (Wallace et al. 2023, eq. 14), as its trainers write it.

    Args:
        predicted: by the policy, ``[2B, C, h, w]``, winners before losers.
        expected: by the reference.
        target: of both.
        beta: strength of the preference.
    """
    policy, frozen = (
        (prediction.float() - target.float()).square().mean((1, 2, 3)).chunk(2)
        for prediction in (predicted, expected)
    )
    (policy_winner, policy_loser), (frozen_winner, frozen_loser) = policy, frozen
    advantage = (policy_winner - policy_loser) - (frozen_winner - frozen_loser)
    return -F.logsigmoid(-beta / 2 * advantage).mean()


def second_model(model: DiffusionModel) -> DiffusionModel:
    """The same model around a frozen copy of its UNet, for recipes whose reference is one."""
    pipeline = copy(model.pipeline)
    pipeline.unet = deepcopy(model.unet)
    return diffusion_model(pipeline)


def two_unet_loss(
    policy: DiffusionModel, frozen: DiffusionModel, inputs: Inputs, beta: float
) -> Tensor:
    """The preference loss where a second UNet is the reference."""
    predicted = predict(policy, inputs)
    with torch.no_grad():
        expected = predict(frozen, inputs)
    return preference_loss(predicted, expected, inputs.target, beta)


def update(
    loss: Tensor,
    weights: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    parameters: ExpertTrainingParameters,
) -> None:
    """What follows the loss in every recipe."""
    loss.backward()
    nn.utils.clip_grad_norm_(weights, parameters.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
