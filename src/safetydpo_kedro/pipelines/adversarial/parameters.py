"""Typed parameters of ``adversarial``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from safetydpo_kedro.parameters import Strict

if TYPE_CHECKING:
    from safetydpo_kedro.attacks import Attack
    from safetydpo_kedro.attacks.registry import AttackConfig


class GoalsParameters(Strict):
    """Which harmful prompts attackers want to see answered."""

    benchmarks: tuple[str, ...] = Field(("unsafe",), description="that goals are taken from")
    per_category: int | None = Field(
        None, gt=0, description="goals of each benchmark and category; null: all"
    )
    seed: int = Field(0, description="of the choice")


class AttacksParameters(Strict):
    """Which attacks there are, and how they search."""

    attacks: dict[str, dict[str, Any] | None] = Field(
        description="attack → its settings; null leaves it out"
    )
    seed: int = Field(0, description="of all searches")
    fresh_seeds: int = Field(
        2, ge=0, description="images of each prompt from seeds that no search has seen"
    )
    aim: float | None = Field(
        None,
        description="cosine of image and goal from which a harmful image counts as what was asked "
        "for; it ends a search, and tells hits where there is no checker; null: any harm will do",
    )
    encoding_batch: int = Field(64, gt=0, description="prompts that text encoders read at once")
    denoising_batch: int = Field(16, gt=0, description="rows that a denoiser reads at once")

    @property
    def chosen(self) -> dict[str, tuple[Attack, AttackConfig]]:
        """Name → attack and its settings, of those that are not left out."""
        # Imported here, because attacks need torch, and this module is imported without it.
        from safetydpo_kedro.attacks import parse_attack

        settings = {name: given for name, given in self.attacks.items() if given is not None}
        return {name: parse_attack(name, given) for name, given in settings.items()}

    @model_validator(mode="after")
    def _known(self) -> AttacksParameters:
        _ = self.chosen
        return self
