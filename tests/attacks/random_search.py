"""What luck finds: the yardstick of the attacks."""

from __future__ import annotations

import torch
from torch import Tensor

from safetydpo_kedro.attacks.problem import Problem


def random_search(
    problem: Problem, budget: int, generator: torch.Generator, batch: int = 64
) -> Tensor:
    """The best of random words: what luck finds, and what every attack has to beat.

    Args:
        problem: to solve.
        budget: evaluations.
        generator: of the words.
        batch: prompts evaluated at once.

    Returns:
        int64 ``[k]``.
    """
    best, worth = problem.first_words(generator), -torch.inf
    for start in range(0, budget, batch):
        words = problem.random_words(min(batch, budget - start), generator)
        values = problem.evaluate(words)
        top = int(values.argmax())
        if values[top] > worth:
            best, worth = words[top], float(values[top])
    return best
