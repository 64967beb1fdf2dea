"""Calibration inputs of the activation profile: which prompts, which latents, which timesteps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.merging.profile import ActivationProfile
from safetydpo_kedro.merging.recorder import ActivationRecorder
from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.preference.latents import CachedPrompts, LatentImages
from safetydpo_kedro.preference.noise import key, keyed_draws
from safetydpo_kedro.progress import progress_bar

NEUTRAL_ITEMS = 2**40  # keys of the noise of neutral images, away from those of pairs
OF_PAIRS = ("unsafe", "safe")


class CalibrationConfig(Strict):
    """What the experts' activations are measured on.

    The paper says "across all inputs" and no more; the default is our reading of it, all else
    are variants of ours.

    Attributes:
        inputs: of each kind of prompts; those of pairs are split evenly over the categories. A
            further kind does not change the inputs of the others.
        prompts: kinds of prompts. ``unsafe`` and ``safe`` are the two sides of the training
            pairs, under the same noise; ``neutral`` are prompts without a category; ``empty`` is
            no prompt, over the images of the neutral ones.
        latents: noised ``images`` of the same prompts, or pure ``noise``, where sampling begins.
        timesteps: ``[low, high)``, shares of the training timesteps if ``high`` is at most 1, else
            timesteps. None: all of them for images, the last one for noise.
        batch_size: inputs in one forward; changes the result only by rounding.
        seed: of the choice of inputs, their noise and their timesteps.

    Example:
        >>> CalibrationConfig(timesteps=(0.5, 1.0)).timestep_range(1000)
        (500, 1000)
        >>> CalibrationConfig(latents="noise").timestep_range(1000)
        (999, 1000)
    """

    inputs: int = Field(default=512, ge=1)
    prompts: tuple[Literal["unsafe", "safe", "neutral", "empty"], ...] = Field(
        default=("unsafe",), min_length=1
    )
    latents: Literal["images", "noise"] = "images"
    timesteps: tuple[float, float] | None = None
    batch_size: int = Field(default=16, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if len(set(self.prompts)) != len(self.prompts):
            raise ValueError(f"prompts {list(self.prompts)}: name each kind once")
        if self.timesteps is None:
            return self
        low, high = self.timesteps
        whole = float(low).is_integer() and float(high).is_integer()
        if not 0 <= low < high or (high > 1 and not whole):
            raise ValueError(
                f"timesteps {[low, high]}: give [low, high) with 0 <= low < high, both as shares "
                f"up to 1 or both as whole timesteps"
            )
        return self

    def timestep_range(self, train_timesteps: int) -> tuple[int, int]:
        """First timestep and the one behind the last.

        Args:
            train_timesteps: of the model, T.

        Raises:
            ValueError: the model has no timestep in between.
        """
        if self.timesteps is None:
            return (train_timesteps - 1 if self.latents == "noise" else 0), train_timesteps
        unit = train_timesteps if self.timesteps[1] <= 1 else 1
        low, high = (round(bound * unit) for bound in self.timesteps)
        if not low < high <= train_timesteps:
            raise ValueError(
                f"timesteps {list(self.timesteps)} mean [{low}, {high}), but the model was "
                f"trained on {train_timesteps}: choose a range within [0, {train_timesteps})"
            )
        return low, high


class Input(NamedTuple):
    """One calibration input.

    Attributes:
        kind: of its prompt.
        row: of its pair, or of its neutral image.
        draw: number of its noise among those of this row.
    """

    kind: str
    row: int
    draw: int


@dataclass(frozen=True)
class Calibration:
    """Calibration inputs: chosen, in order, each under noise that depends on its key alone.

    So they can be recorded in any parts. Groups of the profile are ``unsafe/<category>``,
    ``safe/<category>``, ``neutral`` and ``empty``.

    Attributes:
        config: which inputs.
        cached: pairs, and neutral images, of which ``neutral`` and ``empty`` need some.

    Raises:
        ValueError: neutral images are needed and lacking.
    """

    config: CalibrationConfig
    cached: CachedPrompts

    def __post_init__(self) -> None:
        """Refuse prompts of which there are none."""
        plain = [kind for kind in self.config.prompts if kind not in OF_PAIRS]
        if plain and not self.cached.neutral:
            raise ValueError(
                f"calibration prompts {plain} need neutral images, but there are none; make some, "
                f"or leave these prompts out"
            )

    def __len__(self) -> int:
        return self.config.inputs * len(self.config.prompts)

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of the profile."""
        names = sorted(set(self.cached.categories))
        groups: list[str] = []
        for kind in self.config.prompts:
            groups += [f"{kind}/{name}" for name in names] if kind in OF_PAIRS else [kind]
        return tuple(groups)

    @cached_property
    def inputs(self) -> list[Input]:
        """All inputs, kind by kind."""
        chosen = []
        for kind in self.config.prompts:
            plain = ["neutral"] * len(self.cached.neutral)
            of = self.cached.categories if kind in OF_PAIRS else plain
            rows = choose_inputs(of, self.config.inputs, self.config.seed)
            chosen += [Input(kind, row, draw) for row, draw in rows]
        return chosen

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what chooses the inputs; pictures of the same pairs are taken to be equal."""
        chosen = self.config.model_dump(mode="json", exclude={"batch_size"})
        plain = set(self.config.prompts) - set(OF_PAIRS)
        neutral = len(self.cached.neutral) if plain else 0
        pairs, categories = self.cached.pairs.ids.tolist(), list(self.cached.categories)
        parts = [chosen, pairs, categories, neutral]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def record(
        self, model: DiffusionModel, experts: Mapping[str, LoraAdapter], rows: slice = slice(None)
    ) -> ActivationProfile:
        """Profile experts on these inputs; only the list of them grows with their number.

        Args:
            model: the base model.
            experts: expert name → adapter.
            rows: which of the inputs; profiles of disjoint ones add up.
        """
        batches = list(_batches(self.inputs[rows], self.config.batch_size))
        nothing = model.unconditional().to("cpu") if "empty" in self.config.prompts else None
        model.place_unet()
        with ActivationRecorder(model.unet, experts, self.groups) as recorder, torch.no_grad():
            for batch in progress_bar(batches, desc="activation profile", leave=False):
                recorder.label([self._group(one) for one in batch])
                noisy, timesteps, conditioning = self._prepare(model, batch, nothing)
                model.predict(noisy, timesteps, conditioning)
        return replace(recorder.profile(), calibration=self.digest)

    def _group(self, one: Input) -> str:
        if one.kind in OF_PAIRS:
            return f"{one.kind}/{self.cached.categories[one.row]}"
        return one.kind

    def _prepare(
        self, model: DiffusionModel, batch: Sequence[Input], nothing: Conditioning | None
    ) -> tuple[Tensor, Tensor, Conditioning]:
        """Noised latents, timesteps and conditioning of inputs of one kind."""
        images, prompts, items = self._source(batch[0].kind, nothing)
        rows = torch.tensor([one.row for one in batch])
        low, high = self.config.timestep_range(model.train_timesteps)
        shape, draws = images.mean.shape[1:], [one.draw for one in batch]
        noise = keyed_draws(self.config.seed, items[rows].tolist(), draws, shape, high - low)
        timesteps = noise.timesteps + low
        noisy = noise.noise
        if self.config.latents == "images":
            noisy = model.add_noise(images.sample(rows, noise.posterior), noisy, timesteps)
        return noisy, timesteps, prompts.rows(rows if len(prompts) > 1 else torch.zeros_like(rows))

    def _source(
        self, kind: str, nothing: Conditioning | None
    ) -> tuple[LatentImages, Conditioning, Tensor]:
        """Images of a kind, its prompts (one for all, or one for each image), keys of the noise."""
        pairs, neutral = self.cached.pairs, self.cached.neutral
        if kind == "unsafe":
            return pairs.losers, pairs.unsafe, pairs.ids
        if kind == "safe":
            return pairs.winners, pairs.safe, pairs.ids
        keys = torch.arange(len(neutral)) + NEUTRAL_ITEMS
        if kind == "neutral":
            return neutral.images, neutral.conditioning, keys
        assert nothing is not None  # record() makes it for empty prompts
        return neutral.images, nothing, keys


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


def _batches(inputs: Sequence[Input], size: int) -> Iterator[list[Input]]:
    """Inputs that follow each other, of one kind and at most ``size``."""
    for _, group in groupby(inputs, key=lambda one: one.kind):
        same = list(group)
        for start in range(0, len(same), size):
            yield same[start : start + size]
