"""Prompts with free places, which a search fills with words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Template:
    """A prompt some of whose tokens are free.

    Attributes:
        ids: int64 ``[K]``, content tokens; those at free places are of no account.
        free: int64 ``[k]``, positions of the free places, ascending.

    Example:
        >>> template = Template.prefix(torch.tensor([7, 8]), 2, limit=14)
        >>> template.fill(torch.tensor([[1, 2], [3, 4]])).tolist()
        [[1, 2, 7, 8], [3, 4, 7, 8]]
    """

    ids: Tensor
    free: Tensor

    def __len__(self) -> int:
        return len(self.free)

    def fill(self, words: Tensor) -> Tensor:
        """Content tokens ``[N, K]`` with words ``[N, k]`` at the free places."""
        filled = self.ids.repeat(len(words), 1)
        filled[:, self.free] = words
        return filled

    def embed(self, table: Tensor, embeddings: Tensor) -> Tensor:
        """Embeddings ``[N, K, width]`` of the prompt with these ``[N, k, width]`` at free places.

        Args:
            table: embeddings of all tokens, ``[V, width]``.
            embeddings: of the free places; gradients flow into them.
        """
        fixed = table[self.ids].repeat(len(embeddings), 1, 1)
        places = self.free.to(fixed.device).view(1, -1, 1).expand_as(embeddings)
        return fixed.scatter(1, places, embeddings)

    @classmethod
    def blank(cls, count: int, limit: int) -> Template:
        """Nothing but free places: ``count`` of them, or as many as a prompt may have tokens."""
        count = min(count, limit)
        return cls(torch.zeros(count, dtype=torch.int64), torch.arange(count))

    @classmethod
    def prefix(cls, ids: Tensor, count: int, limit: int) -> Template:
        """``count`` free places before a prompt, whose end is cut where there is no room."""
        count = min(count, limit)
        free = torch.zeros(count, dtype=torch.int64)
        return cls(torch.cat([free, ids])[:limit], torch.arange(count))

    @classmethod
    def interleaved(cls, words: Sequence[Tensor], every: int, limit: int) -> Template:
        """A free place before every ``every`` words of a prompt, which is cut at the limit.

        Args:
            words: tokens of each word; places are never put within one.
            every: words between two free places.
            limit: tokens that the prompt may have.
        """
        tokens: list[int] = []
        free = []
        for i, word in enumerate(words):
            if i % every == 0:
                free.append(len(tokens))
                tokens.append(0)
            tokens += word.tolist()
        return cls._cut(tokens, free, limit)

    @classmethod
    def in_place_of(
        cls, words: Sequence[Tensor], replaced: Sequence[bool], places: int, limit: int
    ) -> Template:
        """Free places instead of some words of a prompt, which is cut at the limit.

        Args:
            words: tokens of each word.
            replaced: whether each gives way.
            places: free places for each word that does.
            limit: tokens that the prompt may have.
        """
        tokens: list[int] = []
        free: list[int] = []
        for word, gone in zip(words, replaced, strict=True):
            if gone:
                free += range(len(tokens), len(tokens) + places)
            tokens += [0] * places if gone else word.tolist()
        return cls._cut(tokens, free, limit)

    @classmethod
    def _cut(cls, tokens: list[int], free: list[int], limit: int) -> Template:
        kept = [place for place in free if place < limit]
        return cls(
            torch.tensor(tokens[:limit], dtype=torch.int64), torch.tensor(kept, dtype=torch.int64)
        )
