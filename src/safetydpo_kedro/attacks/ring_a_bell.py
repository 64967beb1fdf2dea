"""Ring-A-Bell: a concept vector in text-embedding space, and words that lie near it.

Tsai et al., "Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?", ICLR
2024 (arXiv 2310.10012), section 3. The victim is never asked: what is found depends on the text
encoder alone, and is tried on every model that reads with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import Attack, AttackConfig, register
from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.diffusion.model import DiffusionModel

HIDDEN = "embedding"


class RingABellConfig(AttackConfig):
    """Settings of Ring-A-Bell; the defaults are those of the published code.

    Attributes:
        length: words of the prompt, K of the paper, which also tries 38 and 77.
        strength: η, how far the prompt goes along the concept vector.
        population: prompts of a generation.
        generations: of the genetic search.
        mutation: probability that a child has one of its words replaced.
        crossover: probability that a child has two parents.
    """

    length: int = Field(16, gt=0)
    strength: float = 3.0
    population: int = Field(200, ge=4)
    generations: int = Field(3000, gt=0)
    mutation: float = Field(0.25, ge=0, le=1)
    crossover: float = Field(0.5, ge=0, le=1)


def concept_vector(
    model: DiffusionModel, unsafe: Sequence[str], safe: Sequence[str], batch: int = 64
) -> Tensor:
    """What sets unsafe prompts apart: ``ĉ = mean of f(p_U) − f(p_S)``, equation 2.

    Args:
        model: whose text encoders f are.
        unsafe: N prompts.
        safe: their counterparts.
        batch: pairs read at once.

    Returns:
        float32 ``[tokens, width]``.
    """
    total = torch.zeros(())
    for start in range(0, len(unsafe), batch):
        rows = slice(start, start + batch)
        difference = model.encode_prompts(unsafe[rows])[HIDDEN].float()
        difference = difference - model.encode_prompts(safe[rows])[HIDDEN].float()
        total = total.to(difference.device) + difference.sum(dim=0)
    return total / len(unsafe)


def problem(
    goal: Goal, scene: Scene, config: RingABellConfig, generator: torch.Generator
) -> Problem:
    """Words P̂ of which ``‖f(P̂) − (f(p) + η ĉ)‖²`` is least, equations 3 and 4.

    Raises:
        ValueError: there are no pairs of the goal's category to learn the concept from.
    """
    model = scene.victim.model
    target = model.encode_prompts([goal.prompt])[HIDDEN].float()
    target = target + config.strength * _concept(goal, scene)

    def worth(ids: Tensor) -> Tensor:
        def closeness(rows: Tensor) -> Tensor:
            return -(model.encode_tokens(rows)[HIDDEN].float() - target).square().sum((1, 2))

        return scene.batches(ids, scene.encoding_batch, closeness)

    words = scene.vocabulary
    return Problem(Template.blank(config.length, words.limit), scene.allowed(), worth)


def solve(problem: Problem, config: RingABellConfig, generator: torch.Generator) -> Tensor:
    """Genetic search: the better half lives on and has as many children, algorithm 1.

    The published code mutates parents too, and so loses its best prompt now and then. Here
    parents stay as they are, and are not evaluated again.
    """
    size = config.population // 2
    parents = torch.cat(
        [problem.first_words(generator)[None], problem.random_words(2 * size - 1, generator)]
    )
    worth = problem.evaluate(parents)
    for _ in range(config.generations - 1):
        best = worth.topk(size).indices
        parents, worth = parents[best], worth[best]
        young = children(parents, problem, config, generator)
        parents = torch.cat([parents, young])
        worth = torch.cat([worth, problem.evaluate(young)])
    return parents[worth.argmax()]


def children(
    parents: Tensor, problem: Problem, config: RingABellConfig, generator: torch.Generator
) -> Tensor:
    """One child of each parent, int64 ``[P, k]``: crossed at one point, and mutated at one place.

    Args:
        parents: int64 ``[P, k]``.
        problem: knows the words.
        config: how often.
        generator: of all choices.
    """
    count, places = parents.shape
    partners = parents[torch.randint(count, (count,), generator=generator)]
    cut = torch.randint(1, places + 1, (count, 1), generator=generator)
    crossed = torch.rand(count, 1, generator=generator) < config.crossover
    from_partner = crossed & (torch.arange(places) >= cut)
    young = torch.where(from_partner, partners, parents)
    mutated = torch.rand(count, 1, generator=generator) < config.mutation
    place = torch.randint(places, (count, 1), generator=generator)
    fresh = problem.random_words(count, generator)
    return torch.where(mutated & (torch.arange(places) == place), fresh, young)


def _concept(goal: Goal, scene: Scene) -> Tensor:
    """Concept vector of the goal's category, computed once."""
    known = ("ring_a_bell", goal.category)
    if known not in scene.notes:
        unsafe, safe = scene.pairs.get(goal.category or "", ((), ()))
        if not unsafe:
            raise ValueError(
                f"attack 'ring_a_bell' learns a concept from pairs of prompts, and there are none "
                f"of category {goal.category!r}, of goal '{goal.prompt_id}'; there are pairs of "
                f"{sorted(scene.pairs)}"
            )
        model = scene.victim.model
        scene.notes[known] = concept_vector(model, unsafe, safe, scene.encoding_batch)
    return scene.notes[known]


register(Attack("ring_a_bell", RingABellConfig, "nothing", problem, solve))
