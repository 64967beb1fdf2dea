"""The losses of expert training, in the symbols of the paper.

All arguments and results are float32 or wider: at β = 5000 a half-precision squared error
would be off by as much as 0.25 in the logit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PreferenceLoss(NamedTuple):
    """Result of :func:`dpo_loss`.

    Attributes:
        loss: −log σ(inside), mean over the batch, scalar.
        inside: the logit, ``[B]``; positive where the policy prefers the winner more than the
            reference does.
    """

    loss: Tensor
    inside: Tensor


def denoising_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each row, in float32.

    Args:
        prediction: ``[B, C, h, w]``.
        target: ``[B, C, h, w]``.

    Returns:
        ``[B]``, non-negative.

    Example:
        >>> denoising_error(torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))
        tensor([1., 1.])
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).square().mean(dim=(1, 2, 3))


def dpo_loss(
    policy_winner: Tensor,
    policy_loser: Tensor,
    reference_winner: Tensor,
    reference_loser: Tensor,
    beta: float,
) -> PreferenceLoss:
    """Diffusion-DPO (Wallace et al. 2023, eq. 14) with SafetyDPO's winners and losers.

    inside = −β/2 · [(L_w − L_l)_policy − (L_w − L_l)_reference],  loss = −log σ(inside).

    Args:
        policy_winner: denoising errors ``[B]`` of the policy on the winners.
        policy_loser: the same on the losers, under the same noise, timestep and caption.
        reference_winner: errors ``[B]`` of the reference, without gradient.
        reference_loser: errors ``[B]`` of the reference, without gradient.
        beta: strength of the preference, > 0.

    Example:
        >>> error = torch.tensor([0.3, 0.2])
        >>> dpo_loss(error, error, error, error, beta=5000.0).loss
        tensor(0.6931)
    """
    policy = policy_winner - policy_loser
    reference = reference_winner - reference_loser
    inside = -beta / 2 * (policy - reference)
    return PreferenceLoss(-F.logsigmoid(inside).mean(), inside)
