"""Training of one safety expert with Direct Preference Optimization (SafetyDPO, section 3.2).

One step, for rows (pair, caption, draw) and the same noise ε and timestep t on both sides:

    x_t^w, x_t^l    noised latents of the winner x_S and the loser x_U
    policy          one batched forward over [x_t^w; x_t^l; preserved rows]
    reference       the same rows without the adapter and without gradient
    loss            −log σ(−β/2 · [(L_w − L_l)_policy − (L_w − L_l)_reference])

Three optional terms are ours, and off in the reference recipe. DPO asks for an *order* of the
errors alone, and can satisfy it by spoiling both images; these terms say where to go:

    supervised      L_w under p_U: the winner's denoising error
    redirection     ‖policy(x_t, caption) − reference(x_t, p_S)‖², on winners and losers: the
                    policy answers p_U as the reference answers p_S
    preservation    ‖policy(x_t, c) − reference(x_t, c)‖² on harmless images and prompts
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from tqdm.auto import tqdm

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.checkpoints import load_checkpoint, save_checkpoint
from safetydpo_kedro.diffusion.adapters import (
    checkpointed_activations,
    extract_adapter,
    reference,
    trainable_adapter,
)
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.parameters import ExpertTrainingParameters
from safetydpo_kedro.preference.batches import Rows, training_rows
from safetydpo_kedro.preference.latents import LatentPairs, PreservedImages
from safetydpo_kedro.preference.loss import denoising_error, dpo_loss
from safetydpo_kedro.preference.noise import Draws, key, keyed_draws
from safetydpo_kedro.preference.optimizers import learning_rate, make_optimizer

METRICS = (
    "loss",
    "preference_loss",
    "implicit_accuracy",
    "winner_error",
    "loser_error",
    "winner_minus_reference",
    "loser_minus_reference",
    "redirection_loss",
    "preservation_loss",
    "gradient_norm",
    "learning_rate",
    "samples_per_second",
)


@dataclass(frozen=True)
class Inputs:
    """Noised rows of one micro-batch of B pairs and P preserved images.

    Attributes:
        noisy: ``[2B + P, C, h, w]``; winners, losers, preserved rows behind each other.
        target: ``[2B + P, C, h, w]``.
        timesteps: int64 ``[2B + P]``.
        captions: what the policy reads, 2B + P rows.
        safe: p_S of winners and losers, 2B rows.
        unsafe: bool ``[B]``, whether the caption is p_U.
    """

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    captions: Conditioning
    safe: Conditioning
    unsafe: Tensor


class ExpertTrainer:
    """Holds what a training step needs and computes its loss.

    Args:
        model: the model that is to be aligned, with the adapter in training on its UNet.
        pairs: latent pairs of the expert's categories.
        empty: conditioning without a prompt, one row, for caption dropout.
        preserved: pools of preserved images by name: ``neutral``, ``safe``, ``other_unsafe``.
        parameters: of the run.
    """

    def __init__(
        self,
        model: DiffusionModel,
        pairs: LatentPairs,
        empty: Conditioning,
        preserved: Mapping[str, PreservedImages],
        parameters: ExpertTrainingParameters,
    ) -> None:
        self.model = model
        self.pairs = pairs
        self.empty = empty
        self.preserved = preserved
        self.parameters = parameters

    def inputs(self, rows: Rows, step: int, micro_batch: int) -> Inputs:
        """Noised latents, captions and targets of some rows."""
        p, pairs = self.parameters, self.pairs
        shape = pairs.winners.mean.shape[1:]
        timesteps = self.model.train_timesteps
        draws = keyed_draws(p.seed, pairs.ids[rows.pairs], rows.draws, shape, timesteps)
        kept = draws.uniform >= p.caption_dropout
        # Where the caption is dropped the policy has no reason to differ from the reference.
        safe = pairs.safe.rows(rows.pairs).where(kept, self.empty)
        unsafe = rows.unsafe & kept
        captions = pairs.unsafe.rows(rows.pairs).where(unsafe, safe)
        latents = [
            pairs.winners.sample(rows.pairs, draws.posterior),
            pairs.losers.sample(rows.pairs, draws.posterior),
        ]
        noise, times, texts = [draws.noise] * 2, [draws.timesteps] * 2, [captions] * 2
        if p.preservation.weight:
            preserved, text, preserved_draws = self._preserved_rows(step, micro_batch, shape)
            latents.append(preserved)
            noise.append(preserved_draws.noise)
            times.append(preserved_draws.timesteps)
            texts.append(text)
        x, eps, t = torch.cat(latents), torch.cat(noise), torch.cat(times)
        device = self.model.device
        return Inputs(
            noisy=self.model.add_noise(x, eps, t).to(device),
            target=self.model.target(x, eps, t).to(device),
            timesteps=t.to(device),
            captions=Conditioning.join(*texts).to(device),
            safe=Conditioning.join(safe, safe).to(device),
            unsafe=unsafe.to(device),
        )

    def loss(self, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss of a micro-batch, and its metrics."""
        p = self.parameters
        b = len(inputs.unsafe)
        noisy, t, target = inputs.noisy, inputs.timesteps, inputs.target
        policy = self.model.predict(noisy, t, inputs.captions)
        with reference(self.model.unet):
            ref = self.model.predict(noisy, t, inputs.captions)
        winner, loser = denoising_error(policy[: 2 * b], target[: 2 * b]).split(b)
        ref_winner, ref_loser = denoising_error(ref[: 2 * b], target[: 2 * b]).split(b)
        preference, inside = dpo_loss(winner, loser, ref_winner, ref_loser, p.beta)
        supervised = (winner * inputs.unsafe).sum() / inputs.unsafe.sum().clamp(min=1)
        zero = torch.zeros((), device=noisy.device)
        redirection = self._redirection(inputs, policy, ref) if p.redirection_weight else zero
        preservation = (
            denoising_error(policy[2 * b :], ref[2 * b :]).mean() if len(noisy) > 2 * b else zero
        )
        total = winner.mean() if p.strategy == "sft" else p.preference_weight * preference
        total = (
            total
            + p.supervised_weight * supervised
            + p.redirection_weight * redirection
            + p.preservation.weight * preservation
        )
        metrics = {
            "loss": total,
            "preference_loss": preference,
            "implicit_accuracy": (inside > 0).float().mean(),
            "winner_error": winner.mean(),
            "loser_error": loser.mean(),
            "winner_minus_reference": (winner - ref_winner).mean(),
            "loser_minus_reference": (loser - ref_loser).mean(),
            "redirection_loss": redirection,
            "preservation_loss": preservation,
        }
        return total, {name: value.detach() for name, value in metrics.items()}

    def _redirection(self, inputs: Inputs, policy: Tensor, ref: Tensor) -> Tensor:
        # Only rows under p_U need another answer: under p_S (or nothing) ref is the answer.
        rows = inputs.unsafe.repeat(2).nonzero()[:, 0]
        n = 2 * len(inputs.unsafe)
        answer = ref[:n].clone()
        if len(rows):
            with reference(self.model.unet):
                answer[rows] = self.model.predict(
                    inputs.noisy[rows], inputs.timesteps[rows], inputs.safe.rows(rows)
                )
        return denoising_error(policy[:n], answer).mean()

    def _preserved_rows(
        self, step: int, micro_batch: int, shape: torch.Size
    ) -> tuple[Tensor, Conditioning, Draws]:
        p = self.parameters.preservation
        generator = torch.Generator().manual_seed(
            key(self.parameters.seed, "preserved", step, micro_batch)
        )
        shares = {"safe": p.safe_share, "other_unsafe": p.other_unsafe_share}
        shares = {name: share for name, share in shares.items() if name in self.preserved}
        weights = torch.tensor([*shares.values(), 1 - sum(shares.values())], dtype=torch.float32)
        pools = [self.preserved[name] for name in (*shares, "neutral")]
        chosen = torch.multinomial(weights, p.rows, replacement=True, generator=generator)
        row = torch.randint(1 << 40, (p.rows,), generator=generator)
        items = [(pools[c], int(r) % len(pools[c])) for c, r in zip(chosen, row, strict=True)]
        draws = keyed_draws(
            key(self.parameters.seed, "preserved"),
            row,
            [step] * p.rows,
            shape,
            self.model.train_timesteps,
        )
        mean = torch.stack([pool.images.mean[i] for pool, i in items])
        std = torch.stack([pool.images.std[i] for pool, i in items])
        text = Conditioning.join(*(pool.conditioning.rows(slice(i, i + 1)) for pool, i in items))
        text = text.where(draws.uniform >= p.empty_share, self.empty)
        return mean + std * draws.posterior, text, draws


def train_expert(
    model: DiffusionModel,
    pairs: LatentPairs,
    preserved: Mapping[str, PreservedImages],
    parameters: ExpertTrainingParameters,
    checkpoint: Path,
    name: str = "expert",
    metadata: Mapping[str, str] | None = None,
) -> tuple[LoraAdapter, pd.DataFrame]:
    """Train a safety expert; go on from ``checkpoint`` if there is one of the same run.

    The model's own weights stay as they are, and the adapter is gone from it afterwards.

    Args:
        model: the model that is to be aligned.
        pairs: latent pairs of the expert's categories.
        preserved: pools of preserved images; may be empty if ``preservation.weight`` is 0.
        parameters: of the run.
        checkpoint: safetensors file for the training state; removed at the end.
        name: shown in the progress bar.
        metadata: travels with the adapter.

    Returns:
        The expert, and a history with one row per optimizer step and :data:`METRICS` as columns.

    Raises:
        ValueError: there are no pairs, or preservation is asked for without a neutral pool.
    """
    if len(pairs) == 0:
        raise ValueError(f"{name}: there are no training pairs; check train_pairs and its category")
    if parameters.preservation.weight and "neutral" not in preserved:
        raise ValueError(f"{name}: preservation.weight > 0 needs a 'neutral' pool of images")
    empty = model.unconditional().to("cpu")
    identity = fingerprint([name, parameters.model_dump(), len(pairs), dict(metadata or {})])
    model.place_unet()
    history = nn.Module()
    history.register_buffer("values", torch.full((parameters.steps, len(METRICS)), torch.nan))
    with (
        trainable_adapter(model.unet, parameters.lora, parameters.seed) as weights,
        checkpointed_activations(model.unet, parameters.gradient_checkpointing),
    ):
        state = {"adapter": nn.ParameterList(weights), "history": history}
        optimizer = make_optimizer(weights, parameters)
        done = load_checkpoint(checkpoint, state, optimizer, identity)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = learning_rate(parameters)
        schedule = get_scheduler(
            parameters.schedule,
            optimizer,
            num_warmup_steps=parameters.warmup_steps,
            num_training_steps=parameters.steps,
            last_epoch=done - 1,
        )
        trainer = ExpertTrainer(model, pairs, empty, preserved, parameters)
        progress = tqdm(
            range(done, parameters.steps),
            desc=name,
            initial=done,
            total=parameters.steps,
            mininterval=2.0,
        )
        for step in progress:
            metrics = _step(trainer, step, weights, optimizer, schedule)
            history.values[step] = torch.tensor([float(metrics[m]) for m in METRICS])
            if step % 10 == 0:
                progress.set_postfix(
                    loss=f"{metrics['loss']:.4f}", accuracy=f"{metrics['implicit_accuracy']:.2f}"
                )
            if (step + 1) % parameters.checkpoint_every == 0:
                save_checkpoint(checkpoint, step + 1, state, optimizer, identity)
        adapter = extract_adapter(model.unet, dict(metadata or {}))
    checkpoint.unlink(missing_ok=True)
    table = pd.DataFrame(history.values.numpy(), columns=list(METRICS))
    table.insert(0, "step", range(1, parameters.steps + 1))
    return adapter, table


def _step(
    trainer: ExpertTrainer,
    step: int,
    weights: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> dict[str, float]:
    """One optimizer step over all micro-batches."""
    started = time.perf_counter()
    p = trainer.parameters
    rows = training_rows(step, p.batch_size, len(trainer.pairs), p.strategy, p.draws, p.seed)
    size = p.micro_batch_size or p.batch_size
    metrics: dict[str, float] = dict.fromkeys(METRICS, 0.0)
    for micro_batch, start in enumerate(range(0, p.batch_size, size)):
        part = Rows(*(column[start : start + size] for column in rows))
        share = len(part.pairs) / p.batch_size
        loss, values = trainer.loss(trainer.inputs(part, step, micro_batch))
        (loss * share).backward()
        for name, value in values.items():
            metrics[name] += share * float(value)
    norm = nn.utils.clip_grad_norm_(weights, p.max_gradient_norm)
    metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    schedule.step()
    metrics["gradient_norm"] = float(norm)
    metrics["samples_per_second"] = p.batch_size / (time.perf_counter() - started)
    return metrics
