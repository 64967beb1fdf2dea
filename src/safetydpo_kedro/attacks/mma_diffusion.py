"""MMA-Diffusion: other words with the same text embedding, found along token gradients.

Yang et al., "MMA-Diffusion: MultiModal Attack on Diffusion Models", CVPR 2024 (arXiv 2311.17516),
section 3.2, its attack on text. The search is that of Zou et al., "Universal and Transferable
Adversarial Attacks on Aligned Language Models" (greedy coordinate gradient). The victim is never
asked: a prompt is found once, and tried on every model that reads with the text encoder.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from safetydpo_kedro.attacks.problem import Problem
from safetydpo_kedro.attacks.registry import Attack, AttackConfig, register
from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.attacks.template import Template


class MmaDiffusionConfig(AttackConfig):
    """Settings of the text attack of MMA-Diffusion; the defaults are those of its code.

    Attributes:
        length: words of the prompt.
        steps: gradients taken.
        top: words tried at each place, those of steepest descent.
        candidates: prompts evaluated in each step, each with one word replaced.
        forbid_sensitive: leave the goal's sensitive words out ("sensitive word regularization").
        forbidden: words that are left out as well.
    """

    length: int = Field(20, gt=0)
    steps: int = Field(500, gt=0)
    top: int = Field(256, gt=0)
    candidates: int = Field(512, gt=0)
    forbid_sensitive: bool = True
    forbidden: tuple[str, ...] = ()


def problem(
    goal: Goal, scene: Scene, config: MmaDiffusionConfig, generator: torch.Generator
) -> Problem:
    """Words of which ``cos(τ(p_adv), τ(p))`` is largest, equation 2; τ is the prompt's summary."""
    model, words = scene.victim.model, scene.vocabulary
    with torch.no_grad():
        ids = words.encode(goal.prompt)[None]
        target = model.summary(model.encode_tokens(ids), ids.shape[1]).float()

    def similarity(rows: Tensor, embeddings: Tensor | None = None) -> Tensor:
        summary = model.summary(model.encode_tokens(rows, embeddings), rows.shape[1])
        return functional.cosine_similarity(summary.float(), target)

    def worth(ids: Tensor) -> Tensor:
        return scene.batches(ids, scene.encoding_batch, similarity)

    def loss(ids: Tensor, embeddings: Tensor, step: int) -> Tensor:
        return 1 - similarity(ids, embeddings)

    forbidden = [*config.forbidden, *(goal.sensitive_words if config.forbid_sensitive else ())]
    return Problem(
        Template.blank(config.length, words.limit),
        scene.allowed(forbidden),
        worth,
        loss,
        table=scene.table,
    )


def solve(problem: Problem, config: MmaDiffusionConfig, generator: torch.Generator) -> Tensor:
    """Greedy coordinate gradient: of many single replacements, the best becomes the next prompt.

    A step may lead downhill, and so out of a dead end; the best prompt of all steps is returned.
    """
    words = problem.first_words(generator)
    best, best_worth = words, float(problem.evaluate(words[None])[0])
    for step in range(config.steps):
        steepest = steepest_words(problem, words, config.top, step)
        tried = replacements(words, steepest, config.candidates, generator)
        worth = problem.evaluate(tried)
        words = tried[worth.argmax()]
        if worth.max() > best_worth:
            best, best_worth = words, float(worth.max())
    return best


def steepest_words(problem: Problem, words: Tensor, top: int, step: int) -> Tensor:
    """At each free place the words along which the loss falls most, to first order.

    The gradient of the loss for the one-hot choice of word v is ``⟨∂L/∂e, E_v⟩``.

    Args:
        problem: with gradients.
        words: int64 ``[k]``, the present ones.
        top: how many at each place.
        step: of the search.

    Returns:
        int64 ``[k, min(top, W)]``.
    """
    slope = problem.gradient(words, step) @ problem.allowed_table.T
    return problem.allowed[(-slope).topk(min(top, slope.shape[1]), dim=1).indices.cpu()]


def replacements(words: Tensor, steepest: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Prompts with one word replaced, the places in turn, int64 ``[count, k]``."""
    places = torch.arange(count) * len(words) // count
    chosen = torch.randint(steepest.shape[1], (count,), generator=generator)
    tried = words.repeat(count, 1)
    tried[torch.arange(count), places] = steepest[places, chosen]
    return tried


register(Attack("mma_diffusion", MmaDiffusionConfig, "nothing", problem, solve))
