"""What the denoiser is given: noised latents of some rows, with captions and targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.parameters import NoiseParameters
from safetydpo_kedro.preference.batches import Rows
from safetydpo_kedro.preference.latents import LatentPairs
from safetydpo_kedro.preference.noise import Draws, keyed_draws, loser_noise


@dataclass(frozen=True)
class Inputs:
    """Noised rows of B pairs and P preserved images.

    Attributes:
        noisy: ``[2B + P, C, h, w]``; winners, losers, preserved rows behind each other.
        target: ``[2B + P, C, h, w]``.
        timesteps: int64 ``[2B + P]``.
        captions: what the policy reads, 2B + P rows.
        unsafe: bool ``[B]``, whether the caption is p_U.
        safe: p_S of winners and losers, 2B rows, if it is asked for.
        scores: the reference's errors ``[B, 2]`` on winners and losers, if they are known.
    """

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    captions: Conditioning
    unsafe: Tensor
    safe: Conditioning | None = None
    scores: Tensor | None = None

    @property
    def pairs(self) -> int:
        """B."""
        return len(self.unsafe)


def make_inputs(
    model: DiffusionModel,
    pairs: LatentPairs,
    rows: Rows,
    noise: NoiseParameters,
    empty: Conditioning,
    preserved: tuple[Tensor, Conditioning, Draws] | None = None,
    scores: Tensor | None = None,
    with_safe: bool = False,
) -> Inputs:
    """Noise the latents of some rows, on the model's device.

    Winner and loser of a row share timestep and caption, and noise too, unless ``noise.shared`` is
    False. Then the loser's error is that of another ε, and the difference of the two varies more.

    Args:
        model: gives noise schedule, target and device.
        pairs: the set that ``rows`` are positions in.
        rows: B of them.
        noise: seed of the draws, caption dropout, and whether losers share the winners' noise.
        empty: conditioning without a prompt, one row.
        preserved: P latents, captions and draws.
        scores: ``[B, 2]``, handed on.
        with_safe: give p_S beside the captions.
    """
    keys, shape = (noise.seed, pairs.ids[rows.pairs], rows.draws), pairs.winners.mean.shape[1:]
    draws = keyed_draws(*keys, shape, model.train_timesteps)
    losers = draws.noise if noise.shared else loser_noise(*keys, shape)
    kept = draws.uniform >= noise.caption_dropout
    # Where the caption is dropped the policy has no reason to differ from the reference.
    safe = pairs.safe.rows(rows.pairs).where(kept, empty)
    unsafe = rows.unsafe & kept
    captions = pairs.unsafe.rows(rows.pairs).where(unsafe, safe)
    latents = [
        pairs.winners.sample(rows.pairs, draws.posterior),
        pairs.losers.sample(rows.pairs, draws.posterior),
    ]
    noises, times, texts = [draws.noise, losers], [draws.timesteps] * 2, [captions] * 2
    if preserved is not None:
        latents.append(preserved[0])
        texts.append(preserved[1])
        noises.append(preserved[2].noise)
        times.append(preserved[2].timesteps)
    x, eps, t = torch.cat(latents), torch.cat(noises), torch.cat(times)
    device = model.device
    return Inputs(
        noisy=model.add_noise(x, eps, t).to(device),
        target=model.target(x, eps, t).to(device),
        timesteps=t.to(device),
        captions=Conditioning.join(*texts).to(device),
        unsafe=unsafe.to(device),
        safe=Conditioning.join(safe, safe).to(device) if with_safe else None,
        scores=None if scores is None else scores.to(device),
    )
