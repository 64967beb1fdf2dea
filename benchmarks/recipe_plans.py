"""Which recipes are swept: changes to the training parameters of ``conf/base``.

A recipe that stands in several sweeps is trained once. Sweeps come in the order in which they are
run: what says most comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from pydantic import Field

from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters, Strict

SEEDS = (21, 22, 23)


class PairChoice(Strict):
    """Which pairs an expert learns from."""

    per_concept: int = Field(gt=0, description="most pairs of a concept")
    names: int = Field(2, gt=0, description="most names of a concept that its prompts use")


class Settings(Strict):
    """All that decides what an expert becomes, its category apart."""

    training: ExpertTrainingParameters
    noise: NoiseParameters
    pairs: PairChoice

    @classmethod
    def of(cls, standard: Mapping[str, Any], overrides: Mapping[str, Any], seed: int) -> Settings:
        """Standard settings, with changes, and with a seed of adapter, order and noise.

        Args:
            standard: parameters of the training, and beside them ``noise`` and ``pairs``.
            overrides: dotted key → value, such as ``{"preservation.weight": 0.0}``.
            seed: replaces those of ``standard``.

        Raises:
            ValueError: a key is unknown, or a value out of range.
        """
        config = OmegaConf.create(dict(standard))
        fixed = {"seed": seed, "noise.seed": seed, "validation.every": None}
        for name, value in {**overrides, **fixed}.items():
            OmegaConf.update(config, name, value)
        values = OmegaConf.to_container(config)
        noise, pairs = values.pop("noise"), values.pop("pairs")
        return cls(training=values, noise=noise, pairs=pairs)


@dataclass(frozen=True)
class Recipe:
    """A row of a table.

    Attributes:
        name: in the table.
        overrides: changes to ``conf/base``, as :meth:`Settings.of` takes them.
        seeds: it is trained with each of these.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = SEEDS[:1]


def variations(title: str, key: str, *values: Any, **others: Any) -> list[Recipe]:
    """One recipe for each value of a parameter; ``others`` are added to all of them."""
    return [Recipe(f"{title} {value}", {key: value, **others}) for value in values]


STANDARD = Recipe("conf/base", seeds=SEEDS)
# The first step has learning rate 0, and B starts at zero: the expert changes nothing.
UNTRAINED = Recipe("base model", {"steps": 1, "warmup_steps": 1, "schedule": "cosine"})
DPO_ALONE = {"redirection_weight": 0.0, "preservation.weight": 0.0}
NO_REDIRECTION = {"redirection_weight": 0.0}


def paper(beta: float, learning_rate: float, steps: int = 130, **others: Any) -> Recipe:
    """DPO alone, as in the paper."""
    changes = {"beta": beta, "learning_rate": learning_rate, "steps": steps}
    added = "".join(f", {name} {value}" for name, value in others.items())
    name = f"DPO alone, β {beta:g}, lr {learning_rate:g}, {steps} steps{added}"
    return Recipe(name, {**DPO_ALONE, **changes, **others})


def bounds_on_draws(name: str, *bounds: int | None, **overrides: Any) -> list[Recipe]:
    """A recipe under several bounds on noise draws, with all seeds."""
    return [
        Recipe(f"{name}, draws {bound or 'unbounded'}", {**overrides, "noise.draws": bound}, SEEDS)
        for bound in bounds
    ]


SWEEPS: dict[str, list[Recipe]] = {
    # 130 steps see a pair in eight epochs, each under a draw of its own: a bound of 8 is none.
    "draws": [
        UNTRAINED,
        *bounds_on_draws("conf/base", None, 4, 1),
        *bounds_on_draws("DPO alone, β 50, lr 0.002", None, 4, 1, **DPO_ALONE, learning_rate=2e-3),
    ],
    "preservation": [
        STANDARD,
        *variations("preservation", "preservation.weight", 0.0, 20.0, 320.0),
        Recipe("no rows of other categories", {"preservation.other_unsafe_share": 0.0}),
        Recipe(
            "neutral rows alone",
            {"preservation.safe_share": 0.0, "preservation.other_unsafe_share": 0.0},
        ),
    ],
    "redirection": [
        STANDARD,
        *variations("redirection", "redirection_weight", 0.0, 3.0, 30.0),
        Recipe("no DPO", {"preference_weight": 0.0}),
    ],
    "data": [
        STANDARD,
        *variations("two names, pairs of a concept:", "pairs.per_concept", 6, 12, 48),
        *variations("one name, pairs of a concept:", "pairs.per_concept", 24, **{"pairs.names": 1}),
    ],
    "beta": [STANDARD, *variations("β", "beta", 5.0, 500.0)],
    "steps": [STANDARD, *variations("steps", "steps", 65, 260)],
    "supervised": [
        STANDARD,
        *variations(
            "no redirection, winner anchor", "supervised_weight", 0.0, 10.0, redirection_weight=0.0
        ),
        *variations("redirection 10, winner anchor", "supervised_weight", 5.0),
    ],
    "paper": [
        UNTRAINED,
        paper(50.0, 6e-3),
        paper(50.0, 2e-3),
        paper(50.0, 2e-3, 60),
        paper(500.0, 1e-3),
        paper(5000.0, 2e-4),
        paper(5000.0, 1e-3),
    ],
    "strategy": [
        STANDARD,
        *variations("captions", "strategy", "unsafe_prompt", "safe_prompt", "sft"),
        *variations(
            "DPO alone, captions",
            "strategy",
            "unsafe_prompt",
            "safe_prompt",
            learning_rate=2e-3,
            **DPO_ALONE,
        ),
        *variations("the winner's error alone, captions", "strategy", "sft", **DPO_ALONE),
    ],
    "rank": [
        STANDARD,
        *variations("rank", "lora.rank", 4),
        Recipe("shared frozen A", {"lora.frozen_a_seed": 20}),
        Recipe("shared frozen A, rank 16", {"lora.frozen_a_seed": 20, "lora.rank": 16}),
    ],
    "loss": [
        STANDARD,
        *variations("loss", "loss_type", "ipo", "hinge"),
        *variations("label smoothing", "label_smoothing", 0.1),
        *variations("min-SNR γ", "min_snr_gamma", 5.0),
        paper(50.0, 2e-3, loss_type="ipo"),
        paper(50.0, 2e-3, loss_type="hinge"),
        paper(50.0, 2e-3, label_smoothing=0.1),
        paper(50.0, 2e-3, min_snr_gamma=5.0),
    ],
    "learning rate": [STANDARD, *variations("learning rate", "learning_rate", 2e-3, 1.2e-2)],
}
