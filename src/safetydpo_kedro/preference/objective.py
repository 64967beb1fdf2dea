"""The objective of expert training (SafetyDPO, section 3.2), computed part by part.

For rows (pair, caption, draw) and the same noise ε and timestep t on both sides:

    x_t^w, x_t^l    noised latents of the winner x_S and the loser x_U
    policy          one batched forward over [x_t^w; x_t^l; preserved rows]
    reference       what is needed of it, without the adapter and without gradient
    loss            −log σ(−β/2 · [(L_w − L_l)_policy − (L_w − L_l)_reference])

Three optional terms are ours, and off in the reference recipe. DPO asks for an *order* of the
errors alone, and can satisfy it by spoiling both images; these terms say where to go:

    supervised      L_w under p_U: the winner's denoising error
    redirection     ‖policy(x_t, caption) − reference(x_t, p_S)‖², on winners and losers: the
                    policy answers p_U as the reference answers p_S
    preservation    ‖policy(x_t, c) − reference(x_t, c)‖² on harmless images and prompts
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.adapters import reference
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.preference.batches import Rows, training_rows
from safetydpo_kedro.preference.data import TrainingData
from safetydpo_kedro.preference.inputs import Inputs, make_inputs
from safetydpo_kedro.preference.loss import (
    PairErrors,
    PreferenceLoss,
    denoising_error,
    dpo_loss,
    min_snr_weights,
)
from safetydpo_kedro.preference.preserved import PreservedPools, PreservedRows

LOSS_METRICS = (
    "loss",
    "preference_loss",
    "implicit_accuracy",
    "winner_error",
    "loser_error",
    "winner_minus_reference",
    "loser_minus_reference",
    "redirection_loss",
    "preservation_loss",
)


class Part(NamedTuple):
    """A share of an optimizer step, small enough for one forward.

    Attributes:
        step: number of the step.
        rows: pairs.
        preserved: preserved images, if there are any.
    """

    step: int
    rows: Rows
    preserved: PreservedRows | None = None


class ReferenceAnswers(NamedTuple):
    """What the reference says about a part.

    Attributes:
        errors: ``[B, 2]``, on winners and losers under the policy's captions.
        safe: ``[2B, C, h, w]``, predictions under p_S; None unless redirection asks for them.
        preserved: ``[P, C, h, w]``, predictions on the preserved rows.
    """

    errors: Tensor
    safe: Tensor | None
    preserved: Tensor


class Objective:
    """Loss of optimizer steps as a function of their number.

    A step can be cut into parts in any way, over forwards and over processes: the loss of a part
    is its share of the step's loss.

    Args:
        model: the model that is to be aligned, with the adapter in training on its UNet.
        data: pairs, pools of preserved images, known errors of the reference.
        noise: draws and caption dropout.
        parameters: of the run.
    """

    def __init__(
        self,
        model: DiffusionModel,
        data: TrainingData,
        noise: NoiseParameters,
        parameters: ExpertTrainingParameters,
    ) -> None:
        self.model = model
        self.data = data
        self.noise = noise
        self.parameters = parameters
        self.scores = data.scores if data.scores is not None and data.scores.draws else None
        preservation = parameters.preservation
        self.preserved = (
            PreservedPools(data.preserved, preservation, parameters.seed)
            if preservation.weight
            else None
        )

    @cached_property
    def empty(self) -> Conditioning:
        """Conditioning without a prompt, one row, where captions are dropped."""
        return self.model.unconditional().to("cpu")

    def parts(self, step: int, count: int) -> list[Part]:
        """The rows of step ``step`` in ``count`` parts, as equal as can be."""
        p = self.parameters
        rows = training_rows(
            step, p.batch_size, len(self.data.pairs), p.strategy, self.noise.draws, p.seed
        )
        row_parts = zip(*(column.tensor_split(count) for column in rows), strict=True)
        if self.preserved is None:
            return [Part(step, Rows(*part)) for part in row_parts]
        preserved = self.preserved.choose(step)
        kept_parts = zip(*(column.tensor_split(count) for column in preserved), strict=True)
        return [
            Part(step, Rows(*part), PreservedRows(*kept))
            for part, kept in zip(row_parts, kept_parts, strict=True)
        ]

    def inputs(self, part: Part) -> Inputs:
        """Noised latents, captions and targets of a part."""
        preserved = None
        if self.preserved is not None and part.preserved is not None and len(part.preserved.items):
            preserved = self.preserved.draw(
                part.preserved,
                part.step,
                self.noise.seed,
                self.model.train_timesteps,
                self.empty,
            )
        scores = self.scores.rows(part.rows) if self.scores else None
        return make_inputs(
            self.model,
            self.data.pairs,
            part.rows,
            self.noise,
            self.empty,
            preserved,
            scores,
            with_safe=self.parameters.redirection_weight > 0,
        )

    def loss(self, inputs: Inputs) -> tuple[Tensor, Mapping[str, Tensor]]:
        """A part's share of the step's loss, and of the metrics of :data:`LOSS_METRICS`."""
        p, n = self.parameters, 2 * inputs.pairs
        policy = self.model.predict(inputs.noisy, inputs.timesteps, inputs.captions)
        answers = self._reference(inputs)
        errors = self.pair_errors(inputs, policy, answers.errors)
        losses, inside = self.preference(errors)
        supervised = (errors.winner * inputs.unsafe).sum() / p.batch_size
        zero = torch.zeros((), device=policy.device)
        redirection = preservation = zero
        if answers.safe is not None:
            redirection = denoising_error(policy[:n], answers.safe).sum() / (2 * p.batch_size)
        if len(policy) > n:
            distances = denoising_error(policy[n:], answers.preserved)
            preservation = distances.sum() / p.preservation.rows
        preference = losses.sum() / p.batch_size
        winner = errors.winner.sum() / p.batch_size
        total = winner if p.strategy == "sft" else p.preference_weight * preference
        total = (
            total
            + p.supervised_weight * supervised
            + p.redirection_weight * redirection
            + p.preservation.weight * preservation
        )
        metrics = {
            "loss": total,
            "preference_loss": preference,
            "implicit_accuracy": (inside > 0).sum() / p.batch_size,
            "winner_error": winner,
            "loser_error": errors.loser.sum() / p.batch_size,
            "winner_minus_reference": (errors.winner - errors.reference_winner).sum()
            / p.batch_size,
            "loser_minus_reference": (errors.loser - errors.reference_loser).sum() / p.batch_size,
            "redirection_loss": redirection,
            "preservation_loss": preservation,
        }
        return total, {name: value.detach() for name, value in metrics.items()}

    def pair_errors(self, inputs: Inputs, policy: Tensor, reference_errors: Tensor) -> PairErrors:
        """Errors of B pairs, weighted by min-SNR if that is asked for.

        Args:
            inputs: what the policy has read.
            policy: its predictions, ``[2B + P, C, h, w]``.
            reference_errors: ``[B, 2]``.
        """
        n = 2 * inputs.pairs
        winner, loser = denoising_error(policy[:n], inputs.target[:n]).split(inputs.pairs)
        errors = PairErrors(winner, loser, *reference_errors.T)
        gamma = self.parameters.min_snr_gamma
        if gamma is None:
            return errors
        times = inputs.timesteps[: inputs.pairs]
        return errors.weighted(min_snr_weights(self.model.noise_schedule, times, gamma))

    def preference(self, errors: PairErrors) -> PreferenceLoss:
        """The preference losses and logits of B pairs."""
        p = self.parameters
        return dpo_loss(errors, p.beta, p.loss_type, p.label_smoothing)

    def _reference(self, inputs: Inputs) -> ReferenceAnswers:
        """Ask the reference what is needed, in as few rows as can be."""
        n = 2 * inputs.pairs
        with reference(self.model.unet):
            if inputs.scores is None:
                answers = self._predict(inputs, slice(None))
                errors = denoising_error(answers[:n], inputs.target[:n]).view(2, -1).T
                safe = None
                if inputs.safe is not None:
                    safe = self._under_safe(inputs, inputs.safe, answers[:n])
                # A copy, because a view would keep all rows in memory.
                return ReferenceAnswers(errors, safe, answers[n:].clone())
            preserved = inputs.noisy[n:]  # of no rows, if there are none
            if len(preserved):
                preserved = self._predict(inputs, slice(n, None))
            safe = None
            if inputs.safe is not None:
                safe = self.model.predict(inputs.noisy[:n], inputs.timesteps[:n], inputs.safe)
            return ReferenceAnswers(inputs.scores, safe, preserved)

    def _predict(self, inputs: Inputs, rows: slice) -> Tensor:
        return self.model.predict(
            inputs.noisy[rows], inputs.timesteps[rows], inputs.captions.rows(rows)
        )

    def _under_safe(self, inputs: Inputs, captions: Conditioning, answers: Tensor) -> Tensor:
        # Only rows under p_U need another answer: under p_S (or nothing) it is the one given.
        rows = inputs.unsafe.repeat(2).nonzero()[:, 0]
        safe = answers.clone()
        if len(rows):
            safe[rows] = self.model.predict(
                inputs.noisy[rows], inputs.timesteps[rows], captions.rows(rows)
            )
        return safe
