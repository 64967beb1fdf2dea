"""Attacks by name, behind one signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from safetydpo_kedro.attacks.problem import Problem, Spent
from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.preference.noise import key
from safetydpo_kedro.validation import validate_nested

Sees = Literal["nothing", "images", "weights"]


class AttackConfig(Strict):
    """Settings of an attack; subclasses add theirs."""


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        prompt: the adversarial prompt, as text.
        start: worth of what the search started from.
        worth: of the prompt.
        spent: evaluations, gradients, images.
    """

    prompt: str
    start: float
    worth: float
    spent: Spent


@dataclass(frozen=True)
class Attack:
    """One way to search.

    Attributes:
        name: in parameters and tables.
        config: class of its settings.
        sees: of the victim: nothing (a prompt is found once and tried on all), the images that it
            draws, or its weights.
        problem: goal, scene, settings, generator → what is searched for. The victim is not
            patched yet.
        solve: problem, settings, generator → words ``[k]``. The victim is patched.
    """

    name: str
    config: type[AttackConfig]
    sees: Sees
    problem: Callable[[Goal, Scene, Any, torch.Generator], Problem]
    solve: Callable[[Problem, Any, torch.Generator], Tensor]

    def search(self, goal: Goal, scene: Scene, config: AttackConfig, seed: int) -> Found:
        """Search for one prompt.

        Equal seeds find equal prompts on the same machine, whatever was searched before.
        """
        generator = torch.Generator().manual_seed(key(seed, self.name, goal.prompt_id))
        problem = self.problem(goal, scene, config, generator)
        if not len(problem.template):
            raise ValueError(
                f"attack '{self.name}': no token of prompt '{goal.prompt_id}' is free: "
                f"{goal.prompt!r}"
            )
        state = generator.get_state()
        first = problem.first_words(generator)
        generator.set_state(state)  # so that a solver that asks again gets the same words
        with scene.victim.patch():
            start = float(problem.evaluate(first[None])[0])
            words = self.solve(problem, config, generator)
            spent = Spent(**vars(problem.spent))
            prompt = scene.vocabulary.decode(problem.template.fill(words[None])[0])
            # Of the text, because that is what is handed on.
            worth = float(problem.worth(scene.vocabulary.encode(prompt)[None])[0])
        return Found(prompt, start, worth, spent)


_ATTACKS: dict[str, Attack] = {}


def register(attack: Attack) -> Attack:
    """Make an attack known by its name.

    Raises:
        ValueError: the name is taken.
    """
    if attack.name in _ATTACKS:
        raise ValueError(f"attack '{attack.name}' is registered twice, choose another name")
    _ATTACKS[attack.name] = attack
    return attack


def available_attacks() -> list[str]:
    """Names of all attacks, sorted."""
    return sorted(_ATTACKS)


def find_attack(name: str) -> Attack:
    """The attack of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in _ATTACKS:
        raise ValueError(f"unknown attack '{name}', expected one of {available_attacks()}")
    return _ATTACKS[name]


def parse_attack(name: str, settings: Mapping[str, Any]) -> tuple[Attack, AttackConfig]:
    """An attack with its settings, checked.

    Raises:
        ValueError: the name, a key or a value is not one it knows.
    """
    attack = find_attack(name)
    return attack, validate_nested(attack.config, dict(settings), f"settings of attack '{name}'")
