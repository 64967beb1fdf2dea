"""Typed parameters of ``ablations``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, RootModel, model_validator

from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters, Strict
from safetydpo_kedro.pipelines.ablations.training import changed
from safetydpo_kedro.settings import ABLATION_SWEEPS
from safetydpo_kedro.validation import suggestion, validate_nested

if TYPE_CHECKING:
    from safetydpo_kedro.merging.trials import Arm


class ArmsParameters(RootModel[dict[str, dict[str, Any]]]):
    """Name → a way to merge, see :class:`~safetydpo_kedro.merging.trials.Arm`."""

    model_config = ConfigDict(frozen=True)

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms, typed."""
        # Imported here, because merging needs torch, and this module is imported without it.
        from safetydpo_kedro.merging.trials import Arm

        return {
            name: validate_nested(Arm, arm, "an arm of the ablations")
            for name, arm in self.root.items()
        }

    @model_validator(mode="after")
    def _known(self) -> ArmsParameters:
        from safetydpo_kedro.merging import parse_config

        for arm in self.arms.values():
            parse_config(arm.strategy, arm.config)
        return self


class QuestionsParameters(Strict):
    """How much every trial draws.

    Attributes:
        per_category: unsafe prompts of each category, and as many safe ones.
        per_neutral_concept: prompts of each neutral concept.
    """

    per_category: int = 9
    per_neutral_concept: int = 2


class RecipeQuestionsParameters(Strict):
    """How much the expert of a recipe draws."""

    per_category: int = Field(
        18, gt=0, description="unsafe prompts of each trained category, and as many safe ones"
    )
    per_other_category: int = Field(
        3, ge=0, description="of each category that is not trained, likewise"
    )
    per_neutral_concept: int = Field(1, ge=0, description="prompts of each neutral concept")


class DataChanges(Strict):
    """How much of the training pairs a recipe uses; the first in the order of the table."""

    pairs_per_concept: int | None = Field(None, gt=0, description="at most; None: all")
    concepts: int | None = Field(
        None, gt=0, description="of each trained category, at most; None: all"
    )


class RecipeArm(Strict):
    """One point of a sweep: the default recipe, but for some changes."""

    training: dict[str, Any] = Field(
        default_factory=dict, description="what differs from `expert_training`"
    )
    noise: dict[str, Any] = Field(default_factory=dict, description="what differs from `noise`")
    data: DataChanges = DataChanges()
    curve: str = Field("default", description="arms of one curve are joined in the figure")
    value: float | str | None = Field(
        None, description="place on the figure's axis; None: the arm's name, as a number if it is"
    )

    @model_validator(mode="after")
    def _known(self) -> RecipeArm:
        # Against the reference recipe: names and ranges are checked before anything is trained.
        changed(ExpertTrainingParameters(), self.training, "training of an arm of the recipes")
        changed(NoiseParameters(), self.noise, "noise of an arm of the recipes")
        return self

    def place(self, name: str) -> float | str:
        """Where an arm of this name stands on the axis."""
        value = name if self.value is None else self.value
        try:
            return float(value)
        except ValueError:
            return value


class SweepsParameters(RootModel[dict[str, dict[str, RecipeArm]]]):
    """Sweep → name of an arm → what it changes. A sweep may be left out, or have no arms."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _known(self) -> SweepsParameters:
        for name in self.root:
            if name not in ABLATION_SWEEPS:
                raise ValueError(
                    f"unknown sweep {name!r} of the recipes: "
                    f"{suggestion(name, sorted(ABLATION_SWEEPS))}. Sweeps are named in "
                    f"ABLATION_SWEEPS of settings.py, because each has a figure"
                )
        return self

    @property
    def arms(self) -> list[tuple[str, str, RecipeArm]]:
        """Sweep, name and changes of every arm, in the order of the configuration."""
        return [
            (sweep, name, arm) for sweep, arms in self.root.items() for name, arm in arms.items()
        ]
