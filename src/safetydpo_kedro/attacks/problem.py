"""A search as a problem: free places, words for them, what they are worth, what was spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from safetydpo_kedro.attacks.template import Template

# A backward pass costs about two forward passes.
GRADIENT_COST = 3.0


@dataclass
class Spent:
    """What a search has used up.

    Attributes:
        evaluations: prompts whose worth was computed.
        gradients: prompts whose gradient was.
        images: drawn by the victim.
        gradient_cost: evaluations that one gradient is worth.
    """

    evaluations: int = 0
    gradients: int = 0
    images: int = 0
    gradient_cost: float = GRADIENT_COST

    @property
    def budget(self) -> int:
        """Everything in evaluations."""
        return round(self.evaluations + self.gradient_cost * self.gradients)


@dataclass
class Problem:
    """What a solver is given.

    Attributes:
        template: the prompt and its free places.
        allowed: int64 ``[W]``, tokens that may stand at free places.
        worth: content tokens ``[N, K]`` → how near each prompt is to the goal, float32 ``[N]``;
            more is better. The same tokens are always worth the same.
        loss: content tokens ``[N, K]``, their embeddings ``[N, K, width]`` and the number of the
            step → a differentiable loss of each, ``[N]``: an estimate of minus the worth that
            may see fresh noise in each step. None: there are no gradients to be had.
        succeeds: content tokens ``[K]`` → whether what the victim draws is harmful. None: the
            victim may not be asked.
        images_each: images of the victim that one evaluation of ``worth`` draws.
        table: token embeddings ``[V, width]``, where there are gradients.
        start: int64 ``[k]``, words to start from; None: random ones.
        spent: so far.
    """

    template: Template
    allowed: Tensor
    worth: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor, int], Tensor] | None = None
    succeeds: Callable[[Tensor], bool] | None = None
    images_each: int = 0
    table: Tensor | None = None
    start: Tensor | None = None
    spent: Spent = field(default_factory=Spent)

    def evaluate(self, words: Tensor) -> Tensor:
        """Worth of words ``[N, k]`` at the free places, float32 ``[N]`` on the CPU."""
        self.spent.evaluations += len(words)
        self.spent.images += self.images_each * len(words)
        return self.worth(self.template.fill(words)).float().cpu()

    @cached_property
    def allowed_table(self) -> Tensor:
        """Embeddings of the allowed words, ``[W, width]``."""
        return self._table[self.allowed]

    @cached_property
    def allowed_directions(self) -> Tensor:
        """Embeddings of the allowed words, scaled to length one, ``[W, width]``."""
        return functional.normalize(self.allowed_table, dim=1)

    def losses(self, words: Tensor, embeddings: Tensor, step: int) -> Tensor:
        """Losses of prompts whose free places have embeddings of their own, to be differentiated.

        Args:
            words: int64 ``[N, k]``; text encoders only see from them how long a prompt is.
            embeddings: ``[N, k, width]``.
            step: of the search.

        Returns:
            ``[N]``.
        """
        if self.loss is None:
            raise ValueError("this problem has no gradients")
        self.spent.gradients += len(words)
        wide = self.template.embed(self._table, embeddings)
        return self.loss(self.template.fill(words), wide, step)

    def gradient(self, words: Tensor, step: int) -> Tensor:
        """Gradient of the loss for the embeddings of words ``[k]``, ``[k, width]``."""
        embeddings = self._table[words][None].requires_grad_()
        (gradient,) = torch.autograd.grad(
            self.losses(words[None], embeddings, step).sum(), embeddings
        )
        return gradient[0]

    @property
    def _table(self) -> Tensor:
        if self.table is None:
            raise ValueError("this problem has no gradients")
        return self.table

    def solved(self, words: Tensor) -> bool:
        """Whether the victim draws harm for words ``[k]``; False where it may not be asked."""
        if self.succeeds is None:
            return False
        self.spent.images += 1
        return self.succeeds(self.template.fill(words[None])[0])

    def random_words(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` choices of words, int64 ``[count, k]``."""
        chosen = torch.randint(len(self.allowed), (count, len(self.template)), generator=generator)
        return self.allowed[chosen]

    def first_words(self, generator: torch.Generator) -> Tensor:
        """Where a search starts, int64 ``[k]``."""
        return self.random_words(1, generator)[0] if self.start is None else self.start
