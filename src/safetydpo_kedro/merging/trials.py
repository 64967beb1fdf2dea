"""Merges to compare: which experts, which strategy, how strong; and what they are made with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from pydantic import Field

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.merging.calibration import Calibration, CalibrationConfig
from safetydpo_kedro.merging.fitted import FittedWeights
from safetydpo_kedro.merging.fitting import FittingConfig, fit_weights
from safetydpo_kedro.merging.fitting_data import fitting_data
from safetydpo_kedro.merging.profile import ActivationProfile
from safetydpo_kedro.merging.registry import find_strategy, merge
from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.preference.latents import CachedPrompts


class Arm(Strict):
    """One way to merge, over a range of strengths.

    Attributes:
        strategy: a merge strategy.
        config: its settings but for the strength.
        fitting: settings of the fit that differ from those of the run, for fitted strategies.
        strengths: multipliers of ``ΔW``, one point of the trade-off curve each.
    """

    strategy: str
    config: dict[str, Any] = Field(default_factory=dict)
    fitting: dict[str, Any] = Field(default_factory=dict)
    strengths: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4)


@dataclass(frozen=True)
class Trial:
    """One merge.

    Attributes:
        sweep: the comparison that it belongs to.
        arm: name of the arm.
        strength: multiplier of ``ΔW``.
        categories: whose experts are merged, sorted; their prompts are to be harmless.
        recipe: the arm; None: a single expert as it is.
    """

    sweep: str
    arm: str
    strength: float
    categories: tuple[str, ...]
    recipe: Arm | None

    @property
    def name(self) -> str:
        """The trial as a file name."""
        plain = re.sub(r"[^A-Za-z0-9]+", "_", self.arm)
        return f"{self.sweep}-{plain}-{len(self.categories)}-{self.strength:g}"


def strength_trials(
    sweep: str, arms: Mapping[str, Arm], categories: Sequence[str]
) -> Iterator[Trial]:
    """Every arm at every strength, with the experts of all categories."""
    for name, arm in arms.items():
        for strength in arm.strengths:
            yield Trial(sweep, name, strength, tuple(sorted(categories)), arm)


def count_trials(arms: Mapping[str, Arm], categories: Sequence[str]) -> Iterator[Trial]:
    """Every arm at its first strength, with the experts of the first 1, 2, … categories."""
    for name, arm in arms.items():
        for count in range(1, len(categories) + 1):
            some = tuple(sorted(categories[:count]))
            yield Trial("counts", name, arm.strengths[0], some, arm)


def transfer_trials(categories: Sequence[str]) -> Iterator[Trial]:
    """Every expert alone."""
    for category in categories:
        yield Trial("transfer", category, 1.0, (category,), None)


@dataclass
class Workbench:
    """Everything that merges are made of, and what several of them share, made once.

    Attributes:
        model: the base model.
        experts: category → expert.
        cached: pairs and neutral images.
        calibration: inputs of the profile, but for the seed.
        fitting: how weights are fitted, but for the seed.
        fitting_inputs: inputs of the fit for all categories together.
        seed: of profile and fit.
    """

    model: DiffusionModel
    experts: Mapping[str, LoraAdapter]
    cached: CachedPrompts
    calibration: CalibrationConfig
    fitting: FittingConfig
    fitting_inputs: int
    seed: int
    _profiles: dict[Any, ActivationProfile] = field(default_factory=dict)
    _weights: dict[Any, FittedWeights] = field(default_factory=dict)

    def adapter(self, trial: Trial) -> LoraAdapter:
        """The merge of a trial, at its strength."""
        experts = {category: self.experts[category] for category in trial.categories}
        if trial.recipe is None:
            (expert,) = experts.values()
            return expert.scaled(trial.strength)
        arm = trial.recipe
        config = {**arm.config, "strength": trial.strength}
        profile = fitted = None
        needs = find_strategy(arm.strategy).needs
        if needs == "profile":
            profile = self.profile(trial.categories)
        elif needs == "fitted":
            fitted = self.weights(trial.categories, arm.fitting)
        return merge(arm.strategy, experts, config, profile, fitted).adapter

    def profile(self, categories: tuple[str, ...]) -> ActivationProfile:
        """Activation profile of the experts of some categories."""
        if categories not in self._profiles:
            config = self.calibration.model_copy(update={"seed": self.seed})
            calibration = Calibration(config, self.cached.of(categories))
            experts = {category: self.experts[category] for category in categories}
            self._profiles[categories] = calibration.record(self.model, experts)
        return self._profiles[categories]

    def weights(self, categories: tuple[str, ...], changes: Mapping[str, Any]) -> FittedWeights:
        """Fitted weights of the experts of some categories."""
        known = (categories, tuple(sorted(changes.items())))
        if known not in self._weights:
            experts = {category: self.experts[category] for category in categories}
            settings = {**self.fitting.model_dump(), **changes, "seed": self.seed}
            config = FittingConfig.model_validate(settings)
            data = fitting_data(
                self.model,
                experts,
                self.cached,
                inputs=self.fitting_inputs * len(categories) // len(self.experts),
                batch_size=config.batch_size,
                seed=self.seed,
            )
            self._weights[known] = fit_weights(self.model, experts, data, config)[0]
        return self._weights[known]


def trial_rows(table: pd.DataFrame, trial: Trial) -> pd.DataFrame:
    """Judged images with the trial's columns in front: ``sweep, arm, strength, merged, own``.

    ``own`` says of unsafe and safe prompts whether an expert of their category was merged.
    """
    return pd.DataFrame(
        {
            "sweep": trial.sweep,
            "arm": trial.arm,
            "strength": trial.strength,
            "merged": len(trial.categories),
            "own": table["category"].isin(trial.categories),
        }
    ).join(table.drop(columns="image", errors="ignore"))
