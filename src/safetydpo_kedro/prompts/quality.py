"""How close the prompts of a pair are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetydpo_kedro.prompts.split import normalise

QUALITY_COLUMNS = ["token_jaccard", "embedding_similarity", "unsafe_words", "safe_words"]


def measure_pairs(
    pairs: pd.DataFrame, embed: Callable[[Sequence[str]], NDArray[np.float32]]
) -> pd.DataFrame:
    """Add what a user of the data set wants to know about its pairs.

    Args:
        pairs: ``unsafe_prompt, safe_prompt`` and other columns.
        embed: N texts → unit vectors, ``[N, D]``.

    Returns:
        The table with the columns :data:`QUALITY_COLUMNS`: share of common words, cosine of the
        embeddings, and the length of both prompts in words.
    """
    unsafe, safe = list(pairs["unsafe_prompt"]), list(pairs["safe_prompt"])
    cosine = np.einsum("nd,nd->n", embed(unsafe), embed(safe))
    return pairs.assign(
        token_jaccard=[token_jaccard(*texts) for texts in zip(unsafe, safe, strict=True)],
        embedding_similarity=cosine,
        unsafe_words=[len(text.split()) for text in unsafe],
        safe_words=[len(text.split()) for text in safe],
    )


def token_jaccard(first: str, second: str) -> float:
    """Words that both have as a share of the words that either has; 1 if neither has any.

    Example:
        >>> token_jaccard("A knife on a table", "a spoon on a table.")
        0.6
    """
    a, b = set(normalise(first).split()), set(normalise(second).split())
    return len(a & b) / len(a | b) if a | b else 1.0
