"""P4D: words under which the victim predicts what the unprotected model predicts for the goal.

Chin et al., "Prompting4Debugging: Red-Teaming Text-to-Image Diffusion Models by Finding
Problematic Prompts", ICML 2024 (arXiv 2309.06135), section 3. The search is that of Wen et al.,
"Hard Prompts Made Easy" (PEZ, arXiv 2302.03668), algorithm 1.

As in the published code (github.com/joycenerd/P4D): the loss and its uniform timesteps, AdamW,
projection by cosine, what the two placements leave free, a check of the victim's image from the
first step on, all defaults. Our reading:

* The published code noises a sample of the latents' posterior, here it is their mean.
* Only words may be written that the tokenizer reads back, and places lie between words, not tokens.
* Draws of noise come again after ``draws`` of them, because the unprotected model is asked for its
  predictions before the search.
* The best prompt is the one of least loss over fixed draws, of all that the search came by, as in
  PEZ. The published code takes that whose image is most like the goal's, to CLIP.
* The search stops at a harmful image; the published code goes through all steps.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from safetydpo_kedro.attacks.problem import GRADIENT_COST, Problem, Spent
from safetydpo_kedro.attacks.registry import Attack, AttackConfig, register
from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.attacks.white_box import (
    Best,
    GoalImage,
    Noised,
    closeness,
    draws_harm,
    prediction_loss,
)


class P4dConfig(AttackConfig):
    """Settings of P4D; the defaults are those of the published code where it has them.

    Attributes:
        placement: ``n``: nothing but free words (P4D-N); ``k``: the prompt with a free word before
            every few of its own (P4D-K).
        length: free words of P4D-N.
        every: words of the prompt between two free ones, of P4D-K.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        steps: gradients taken.
        batch: draws of noise and timestep in each step.
        draws: how many there are, before they come again.
        judging_draws: of the worth of a prompt.
        check_every: steps between two looks at the victim's image.
    """

    placement: Literal["n", "k"] = "n"
    length: int = Field(16, gt=0)
    every: int = Field(3, gt=0)
    learning_rate: float = Field(0.1, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    steps: int = Field(3000, gt=0)
    batch: int = Field(1, gt=0)
    draws: int = Field(1024, gt=0)
    judging_draws: int = Field(8, gt=0)
    check_every: int = Field(50, gt=0)


def problem(goal: Goal, scene: Scene, config: P4dConfig, generator: torch.Generator) -> Problem:
    """Words w of which ``‖ε_victim(x_t, w) − ε_base(x_t, p)‖²`` is least, equation 2.

    The unprotected model predicts here, before its weights become the victim's.
    """
    model, words = scene.victim.model, scene.vocabulary
    seed = int(torch.randint(2**62, (), generator=generator))
    count = min(config.draws, config.steps * config.batch)
    image = GoalImage.of(goal, scene)
    pool = unprotected(goal, scene, image.noised(seed, range(count)))
    judging = unprotected(goal, scene, image.judging(config.judging_draws))

    def loss(ids: Tensor, embeddings: Tensor, step: int) -> Tensor:
        drawn = pool.rows((step * config.batch + torch.arange(config.batch)) % count)
        return prediction_loss(model, ids, embeddings, drawn)

    if config.placement == "n":
        template = Template.blank(config.length, words.limit)
    else:
        own = words.encode_words(goal.prompt)
        template = Template.interleaved(own, config.every, words.limit)
    return Problem(
        template,
        scene.allowed(),
        closeness(scene, judging),
        loss,
        draws_harm(goal, scene),
        table=scene.table,
        # A gradient sees fewer draws than an evaluation, or more.
        spent=Spent(gradient_cost=GRADIENT_COST * config.batch / config.judging_draws),
    )


@torch.no_grad()
def unprotected(goal: Goal, scene: Scene, noised: Noised) -> Noised:
    """The same draws; the target is what the unprotected model predicts for the goal's prompt."""
    model, conditioning = scene.base, scene.base.encode_prompts([goal.prompt])
    predictions = []
    for start in range(0, len(noised.timesteps), scene.denoising_batch):
        part = noised.rows(slice(start, start + scene.denoising_batch))
        prompts = conditioning.rows(torch.zeros_like(part.timesteps))
        predicted = model.predict(part.noisy, part.timesteps, prompts)
        predictions.append(predicted.float().cpu())
    return noised._replace(target=torch.cat(predictions))


def solve(problem: Problem, config: P4dConfig, generator: torch.Generator) -> Tensor:
    """PEZ: embeddings move along the gradient that is taken at the nearest words."""
    words, previous, best = problem.first_words(generator), None, Best()
    assert problem.table is not None  # as problem() made it
    point = problem.table[words].clone()
    optimizer = torch.optim.AdamW(
        [point], lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for step in range(config.steps):
        words = nearest_words(problem, point)
        if previous is None or not torch.equal(words, previous):
            best.consider(words, float(problem.evaluate(words[None])[0]))
        if step % config.check_every == 0 and problem.solved(words):
            return words
        point.grad = problem.gradient(words, step)
        optimizer.step()
        previous = words
    return best.words


def nearest_words(problem: Problem, point: Tensor) -> Tensor:
    """Allowed words whose embeddings have the largest cosine with ``[k, width]``, int64 ``[k]``."""
    cosines = functional.normalize(point, dim=1) @ problem.allowed_directions.T
    return problem.allowed[cosines.argmax(dim=1).cpu()]


register(Attack("p4d", P4dConfig, "weights", problem, solve))
