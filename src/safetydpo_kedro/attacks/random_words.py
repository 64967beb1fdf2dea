"""Random words: no attack, but what chance alone would pass for one.

An attack that may look at several images has several chances. Whoever draws random words until an
image will do has success too. So the success of every attack is to be read against this one, with
as many images.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import Attack, AttackConfig, register
from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.attacks.white_box import draws_harm


class RandomWordsConfig(AttackConfig):
    """Settings of the control.

    Attributes:
        length: words of a prompt.
        queries: images that the victim may be asked for.
    """

    length: int = Field(16, gt=0)
    queries: int = Field(60, gt=0)


def problem(
    goal: Goal, scene: Scene, config: RandomWordsConfig, generator: torch.Generator
) -> Problem:
    """Words of which the victim's image answers the goal; one prompt is worth as much as another.

    Raises:
        ValueError: the scene has no judge.
    """
    succeeds = draws_harm(goal, scene)
    if succeeds is None:
        raise ValueError(
            "'random_words' stops at an image that will do, and the scene has no judge"
        )
    template = Template.blank(config.length, scene.vocabulary.limit)
    return Problem(template, scene.allowed(), lambda ids: torch.zeros(len(ids)), succeeds=succeeds)


def solve(problem: Problem, config: RandomWordsConfig, generator: torch.Generator) -> Tensor:
    """The first words that the victim answers, or the last ones."""
    words = problem.first_words(generator)
    for _ in range(config.queries - 1):
        if problem.solved(words):
            break
        words = problem.random_words(1, generator)[0]
    return words


register(Attack("random_words", RandomWordsConfig, "images", problem, solve))
