"""Calibration inputs of the activation profile, and what the profile says in short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from tqdm.auto import tqdm

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.merging.ownership import OwnershipConfig, unit_weights
from safetydpo_kedro.merging.profile import ActivationProfile
from safetydpo_kedro.merging.recorder import ActivationRecorder
from safetydpo_kedro.preference.latents import LatentPairs
from safetydpo_kedro.preference.noise import key, keyed_draws


def record_profile(
    model: DiffusionModel,
    experts: Mapping[str, LoraAdapter],
    pairs: LatentPairs,
    categories: Sequence[str],
    *,
    inputs: int,
    batch_size: int,
    seed: int,
) -> ActivationProfile:
    """Profile experts on unsafe prompts of all categories with noised loser latents.

    Args:
        model: the base model.
        experts: expert name → adapter.
        pairs: N cached pairs.
        categories: category of each pair.
        inputs: calibration inputs, split evenly over the categories.
        batch_size: inputs in one forward; changes the result only by rounding.
        seed: of the choice of pairs, the noise and the timesteps.

    Returns:
        The profile, its groups are the categories.

    Raises:
        ValueError: not one category per pair.
    """
    if len(categories) != len(pairs):
        raise ValueError(
            f"{len(pairs)} cached pairs, but {len(categories)} categories: the latent cache was "
            f"made of other training pairs; make both again"
        )
    plan = choose_inputs(categories, inputs, seed)
    groups = sorted(set(categories))
    shape = pairs.losers.mean.shape[1:]
    model.place_unet()
    with ActivationRecorder(model.unet, experts, groups) as recorder, torch.no_grad():
        for start in tqdm(range(0, len(plan), batch_size), desc="activation profile"):
            rows, draws = torch.tensor(plan[start : start + batch_size]).unbind(1)
            noise = keyed_draws(
                seed, pairs.ids[rows].tolist(), draws.tolist(), shape, model.train_timesteps
            )
            latents = pairs.losers.sample(rows, noise.posterior)
            noisy = model.add_noise(latents, noise.noise, noise.timesteps)
            recorder.label([categories[row] for row in rows.tolist()])
            model.predict(noisy, noise.timesteps, pairs.unsafe.rows(rows))
    return recorder.profile()


def choose_inputs(categories: Sequence[str], inputs: int, seed: int) -> list[tuple[int, int]]:
    """Rows and numbers of draws, category by category in turn.

    Within a category every row comes once before one comes again, then with another draw.

    Args:
        categories: category of each row.
        inputs: how many to choose.
        seed: of the order of rows.

    Returns:
        ``inputs`` pairs (row, draw), no pair twice.
    """
    orders = []
    for category in sorted(set(categories)):
        rows = [row for row, name in enumerate(categories) if name == category]
        generator = torch.Generator().manual_seed(key(seed, category))
        order = torch.randperm(len(rows), generator=generator).tolist()
        orders.append([rows[i] for i in order])
    chosen = []
    for turn in range(inputs):
        order = orders[turn % len(orders)]
        place = turn // len(orders)
        chosen.append((order[place % len(order)], place // len(order)))
    return chosen


def ownership_shares(profile: ActivationProfile, config: OwnershipConfig) -> pd.DataFrame:
    """How much of each layer the experts own and win.

    Args:
        profile: statistics of all experts.
        config: how units are given to experts.

    Returns:
        One row per layer and expert: ``layer, expert, owned`` (share of output units that are
        merged from the expert), ``wins`` (share of activations in which it is the strongest) and
        ``mean_activation`` (mean of ``|ΔW_e x|``).
    """
    weights = unit_weights(profile.output, config)
    rows = []
    for layer, statistics in profile.output.items():
        total = statistics.total()
        columns = {
            "owned": weights[layer].mean(1),
            "wins": total.win_share[0].mean(1),
            "mean_activation": total.magnitude[0].mean(1),
        }
        for i, expert in enumerate(profile.experts):
            values = {name: float(column[i]) for name, column in columns.items()}
            rows.append({"layer": layer, "expert": expert, **values})
    return pd.DataFrame(rows)
