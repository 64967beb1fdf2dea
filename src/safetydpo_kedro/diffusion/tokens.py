"""Prompts as tokens: words as numbers, and conditioning with gradients for their embeddings.

Searches over prompts work on *content tokens*: the ids of a prompt without start, end and
padding. A family with two text encoders has two embedding tables over one vocabulary; here they
stand side by side as one wide table, so that a search need not know how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TextTower(NamedTuple):
    """One of a model's text encoders, with its tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    encoder: PreTrainedModel

    @property
    def table(self) -> Tensor:
        """Token embeddings ``[V, width]``, of the encoder's precision and device."""
        return self.encoder.get_input_embeddings().weight

    def frame(self, ids: Tensor) -> Tensor:
        """Content tokens between start, end and padding.

        Args:
            ids: int64 ``[N, K]``.

        Returns:
            int64 ``[N, L]``, L being the tokenizer's length.
        """
        tokenizer = self.tokenizer
        length = tokenizer.model_max_length
        framed = torch.full((len(ids), length), tokenizer.pad_token_id)
        framed[:, 0] = tokenizer.bos_token_id
        framed[:, 1 : 1 + ids.shape[1]] = ids
        framed[:, 1 + ids.shape[1]] = tokenizer.eos_token_id
        return framed

    @contextmanager
    def content(self, embeddings: Tensor | None) -> Iterator[None]:
        """Within the block content tokens have these embeddings ``[N, K, width]``, not their own.

        Gradients flow into ``embeddings``. ``None`` changes nothing.
        """
        if embeddings is None:
            yield
            return

        def replace(module: nn.Module, inputs: tuple[Tensor], own: Tensor) -> Tensor:
            content = embeddings.to(own.device, own.dtype)
            return torch.cat([own[:, :1], content, own[:, 1 + content.shape[1] :]], dim=1)

        handle = self.encoder.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


class Vocabulary:
    """Words that a search may write, as tokens of a model's first text tower.

    A prompt found by a search is handed on as text, and read again by the tokenizer. So the words
    are those tokens that stand for themselves wherever they are written: printable, and encoded
    to themselves. Between blanks they always come back as the same tokens.

    Args:
        towers: of the model.

    Attributes:
        ids: int64 ``[W]``, tokens of the words.
        words: W texts.
        limit: content tokens that a prompt may have.

    Raises:
        ValueError: the towers' tokenizers number their tokens differently.
    """

    def __init__(self, towers: Sequence[TextTower]) -> None:
        self._tokenizer = towers[0].tokenizer
        vocabulary = self._tokenizer.get_vocab()
        if any(tower.tokenizer.get_vocab() != vocabulary for tower in towers[1:]):
            raise ValueError("the text encoders have different vocabularies; searches need one")
        self.limit = min(tower.tokenizer.model_max_length for tower in towers) - 2
        texts = self._tokenizer.batch_decode([[i] for i in range(len(vocabulary))])
        tokens = self._tokenizer(texts, add_special_tokens=False).input_ids
        special = set(self._tokenizer.all_special_ids)
        kept = [
            i
            for i, (text, back) in enumerate(zip(texts, tokens, strict=True))
            if back == [i] and text.isprintable() and i not in special
        ]
        self.ids = torch.tensor(kept, dtype=torch.int64)
        self.words = [texts[i] for i in kept]

    def encode(self, prompt: str) -> Tensor:
        """Content tokens of a prompt, int64 ``[K]``, at most :attr:`limit`."""
        ids = self._tokenizer(prompt, add_special_tokens=False).input_ids[: self.limit]
        return torch.tensor(ids, dtype=torch.int64)

    def encode_words(self, prompt: str) -> list[Tensor]:
        """Content tokens of each word of a prompt (what stands between blanks)."""
        return [self.encode(word) for word in prompt.split()]

    def decode(self, ids: Tensor) -> str:
        """The text of content tokens ``[K]``."""
        return self._tokenizer.decode(ids.tolist()).strip()

    def allowed(self, forbidden: Sequence[str] = ()) -> Tensor:
        """Tokens of the words but for some, in any case, int64 ``[W']``.

        Raises:
            ValueError: no words are left.
        """
        banned = {word.casefold() for word in forbidden}
        kept = torch.tensor([word.casefold() not in banned for word in self.words], dtype=bool)
        if not kept.any():
            raise ValueError(f"all {len(self.words)} words of the vocabulary are forbidden")
        return self.ids[kept]


def token_table(towers: Sequence[TextTower]) -> Tensor:
    """Embedding tables of all towers side by side, float32 ``[V, Σ width]`` on the CPU's side.

    Raises:
        RuntimeError: the towers have tables of different lengths.
    """
    return torch.cat([tower.table.detach().float() for tower in towers], dim=1)


def split_embeddings(towers: Sequence[TextTower], embeddings: Tensor | None) -> list[Tensor | None]:
    """Each tower's part of wide embeddings ``[N, K, Σ width]``."""
    if embeddings is None:
        return [None] * len(towers)
    return list(embeddings.split([tower.table.shape[1] for tower in towers], dim=-1))
