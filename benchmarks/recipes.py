"""What the training benchmarks share: an update, and the loss of the reference recipe."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import ExpertTrainingParameters
from safetydpo_kedro.preference.trainer import Inputs


def second_model(model: DiffusionModel) -> DiffusionModel:
    """The same model around a frozen copy of its UNet, for recipes whose reference is one."""
    pipeline = copy(model.pipeline)
    pipeline.unet = deepcopy(model.unet)
    return diffusion_model(pipeline)


def two_unet_loss(
    policy: DiffusionModel, frozen: DiffusionModel, inputs: Inputs, beta: float
) -> Tensor:
    """The preference loss where a second UNet is the reference, as Diffusion-DPO trainers do it."""
    rows = inputs.noisy, inputs.timesteps, inputs.captions
    predicted = policy.predict(*rows).float()
    with torch.no_grad():
        expected = frozen.predict(*rows).float()
    target = inputs.target.float()
    policy_winner, policy_loser = (predicted - target).square().mean((1, 2, 3)).chunk(2)
    frozen_winner, frozen_loser = (expected - target).square().mean((1, 2, 3)).chunk(2)
    advantage = (policy_winner - policy_loser) - (frozen_winner - frozen_loser)
    return -F.logsigmoid(-beta / 2 * advantage).mean()


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
