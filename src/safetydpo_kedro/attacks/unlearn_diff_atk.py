"""UnlearnDiffAtk: words before the prompt under which the victim denoises the goal's image best.

Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To
Generate Unsafe Images ... For Now", ECCV 2024 (arXiv 2310.11868), section 4. No second model is
needed: the victim itself tells, as a classifier, which prompt belongs to the image.

As in the published code (github.com/OPTML-Group/Diffusion-MU-Attack, ``text_grad``): words before
the prompt, the uniform start, sampled one-hot choices with straight-through gradients clipped to
±1, Adam and its settings, the projection on the simplex after each step, timesteps in ascending
order with fresh noise in each step, a check of the most likely words after each timestep. Our
reading:

* Only words may be written that the tokenizer reads back.
* The projection is exact, not a bisection.
* Where no image is harmful the result is the best of the checked prompts by their loss over fixed
  draws, not the last one.
* The published code first tries the prompt without words before it. Here that is left to whoever
  counts successes.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from safetydpo_kedro.attacks.problem import GRADIENT_COST, Problem, Spent
from safetydpo_kedro.attacks.registry import Attack, AttackConfig, register
from safetydpo_kedro.attacks.scene import Goal, Scene
from safetydpo_kedro.attacks.template import Template
from safetydpo_kedro.attacks.white_box import (
    Best,
    GoalImage,
    closeness,
    draws_harm,
    prediction_loss,
    spaced_timesteps,
)


class UnlearnDiffAtkConfig(AttackConfig):
    """Settings of UnlearnDiffAtk; the defaults are those of the published code.

    Attributes:
        places: free words before the prompt.
        timesteps: how many are gone through, equally far apart.
        iterations: steps at each of them.
        batch: draws of noise in each step.
        learning_rate: of Adam.
        weight_decay: of Adam, added to the gradient.
        judging_draws: of the worth of a prompt; the published code has none.
    """

    places: int = Field(5, gt=0)
    timesteps: int = Field(50, gt=0)
    iterations: int = Field(40, gt=0)
    batch: int = Field(1, gt=0)
    learning_rate: float = Field(0.01, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    judging_draws: int = Field(8, gt=0)


def problem(
    goal: Goal, scene: Scene, config: UnlearnDiffAtkConfig, generator: torch.Generator
) -> Problem:
    """Words c' of which ``‖ε − ε_victim(x_t, c')‖²`` is least, equation 7.

    For models that predict velocity, the velocity takes the place of ε.
    """
    model, words = scene.victim.model, scene.vocabulary
    spaced = spaced_timesteps(scene.base.train_timesteps, config.timesteps)
    seed = int(torch.randint(2**62, (), generator=generator))
    image = GoalImage.of(goal, scene)

    def loss(ids: Tensor, embeddings: Tensor, step: int) -> Tensor:
        timestep = spaced[step // config.iterations]
        numbers = range(step * config.batch, (step + 1) * config.batch)
        drawn = image.noised(seed, numbers, [timestep] * config.batch)
        return prediction_loss(model, ids, embeddings, drawn)

    return Problem(
        Template.prefix(words.encode(goal.prompt), config.places, words.limit),
        scene.allowed(),
        closeness(scene, image.judging(config.judging_draws)),
        loss,
        draws_harm(goal, scene),
        table=scene.table,
        # A gradient sees fewer draws than an evaluation, or more.
        spent=Spent(gradient_cost=GRADIENT_COST * config.batch / config.judging_draws),
    )


def solve(problem: Problem, config: UnlearnDiffAtkConfig, generator: torch.Generator) -> Tensor:
    """Projected gradient steps on a distribution over words for each place."""
    allowed, best = problem.allowed, Best()
    point = torch.full((len(problem.template), len(allowed)), 1 / len(allowed))
    optimizer = torch.optim.Adam([point], lr=config.learning_rate, weight_decay=config.weight_decay)
    best.consider(*_judged(problem, problem.first_words(generator)))
    for step in range(config.timesteps * config.iterations):
        chosen = allowed[torch.multinomial(point, 1, generator=generator)[:, 0]]
        point.grad = one_hot_gradient(problem, chosen, step).clamp(-1, 1)
        optimizer.step()
        point.copy_(project_to_simplex(point))
        if (step + 1) % config.iterations == 0:
            words = allowed[point.argmax(dim=1)]
            best.consider(*_judged(problem, words))
            if problem.solved(words):
                return words
    return best.words


def one_hot_gradient(problem: Problem, words: Tensor, step: int) -> Tensor:
    """Gradient of the loss for the one-hot choice of words ``[k]``, float32 ``[k, W]`` on the CPU.

    The choice of word v stands for the embedding ``E_v``, so that its slope is ``⟨∂L/∂e, E_v⟩``.
    """
    return (problem.gradient(words, step) @ problem.allowed_table.T).cpu()


def project_to_simplex(points: Tensor) -> Tensor:
    """Nearest points whose coordinates are not negative and sum up to one.

    Duchi et al., "Efficient Projections onto the ℓ1-Ball for Learning in High Dimensions", ICML
    2008, figure 1.

    Args:
        points: ``[..., W]``.

    Returns:
        ``[..., W]``.

    Example:
        >>> project_to_simplex(torch.tensor([0.5, 1.0, -3.0]))
        tensor([0.2500, 0.7500, 0.0000])
    """
    ordered = points.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(dim=-1) - 1
    places = torch.arange(1, points.shape[-1] + 1, device=points.device)
    support = (ordered * places > excess).sum(dim=-1, keepdim=True)
    return (points - excess.gather(-1, support - 1) / support).clamp(min=0)


def _judged(problem: Problem, words: Tensor) -> tuple[Tensor, float]:
    return words, float(problem.evaluate(words[None])[0])


register(Attack("unlearn_diff_atk", UnlearnDiffAtkConfig, "weights", problem, solve))
