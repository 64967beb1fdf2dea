"""The losses of expert training, in the symbols of the paper.

All arguments and results are float32 or wider: at β = 5000 a half-precision squared error
would be off by as much as 0.25 in the logit.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

LossType = Literal["sigmoid", "hinge", "ipo"]


class PairErrors(NamedTuple):
    """Denoising errors of B pairs, each under the same noise, timestep and caption.

    Attributes:
        winner: ``[B]``, of the policy on the winners.
        loser: ``[B]``, of the policy on the losers.
        reference_winner: ``[B]``, of the reference, without gradient.
        reference_loser: ``[B]``, of the reference, without gradient.
    """

    winner: Tensor
    loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor

    def weighted(self, weights: Tensor) -> PairErrors:
        """The same, each row times its weight ``[B]``."""
        return PairErrors(*(error * weights for error in self))


class PreferenceLoss(NamedTuple):
    """Result of :func:`dpo_loss`.

    Attributes:
        losses: ``[B]``.
        inside: the logit, ``[B]``; positive where the policy prefers the winner more than the
            reference does.
    """

    losses: Tensor
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
    errors: PairErrors,
    beta: float,
    loss_type: LossType = "sigmoid",
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    """Diffusion-DPO (Wallace et al. 2023, eq. 14) with SafetyDPO's winners and losers.

    inside = −β/2 · [(L_w − L_l)_policy − (L_w − L_l)_reference]

    ======== ============================================== ==================================
    sigmoid  −(1 − ε) log σ(inside) − ε log σ(−inside)      ε = 0: the paper; else conservative
                                                            DPO (Mitchell 2023)
    hinge    max(0, 1 − inside)                             SLiC (Zhao et al. 2023)
    ipo      (inside − 1/2)²                                IPO (Azar et al. 2023, eq. 17)
    ======== ============================================== ==================================

    IPO's own form is (inside/β − 1/(2β))²; here it is multiplied by β², which leaves the minimum
    where it is and spares the optimizer gradients of 1e-8.

    Args:
        errors: of B pairs.
        beta: strength of the preference, > 0.
        loss_type: a row of the table.
        label_smoothing: ε in [0, 0.5), of ``sigmoid``.

    Example:
        >>> error = torch.tensor([0.3, 0.2])
        >>> dpo_loss(PairErrors(error, error, error, error), beta=5000.0).losses
        tensor([0.6931, 0.6931])
    """
    policy = errors.winner - errors.loser
    reference = errors.reference_winner - errors.reference_loser
    inside = -beta / 2 * (policy - reference)
    if loss_type == "hinge":
        losses = (1 - inside).relu()
    elif loss_type == "ipo":
        losses = (inside - 0.5).square()
    else:
        losses = -F.logsigmoid(inside)
        if label_smoothing:
            losses = torch.lerp(losses, -F.logsigmoid(-inside), label_smoothing)
    return PreferenceLoss(losses, inside)


def min_snr_weights(schedule: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights of denoising errors by min-SNR (Hang et al. 2023, section 3.4), in (0, 1].

    min(SNR, γ)/SNR where the model predicts noise, min(SNR, γ)/(SNR + 1) where it predicts
    velocity; SNR = ᾱ_t/(1 − ᾱ_t).

    Args:
        schedule: noise schedule of the model.
        timesteps: int64 ``[B]``.
        gamma: γ > 0.

    Returns:
        float32 ``[B]`` on the timesteps' device.
    """
    snr: Tensor = compute_snr(schedule, timesteps)
    velocity = schedule.config["prediction_type"] == "v_prediction"
    return (snr.clamp(max=gamma) / (snr + 1 if velocity else snr)).float()
