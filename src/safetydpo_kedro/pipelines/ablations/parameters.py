"""Typed parameters of ``ablations``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, RootModel, model_validator

from safetydpo_kedro.validation import Explained, validate_nested

if TYPE_CHECKING:
    from safetydpo_kedro.merging.trials import Arm


class ArmsParameters(RootModel[dict[str, dict[str, Any]]]):
    """Name → a way to merge, see :class:`~safetydpo_kedro.merging.trials.Arm`."""

    model_config = ConfigDict(frozen=True)

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms, typed."""
        # Imported here, because merging needs torch, and parameters are read without it.
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


class QuestionsParameters(Explained):
    """How much every trial draws.

    Attributes:
        per_category: unsafe prompts of each category, and as many safe ones.
        per_neutral_concept: prompts of each neutral concept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_category: int = 9
    per_neutral_concept: int = 2
