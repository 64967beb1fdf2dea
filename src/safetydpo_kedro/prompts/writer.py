"""The interface of prompt writers, which a grammar and a language model share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas as pd

PAIR_COLUMNS = [
    "pair_id",
    "category",
    "concept",
    "unsafe_prompt",
    "safe_prompt",
    "seed",
    "group",
]


class PromptPair(NamedTuple):
    """An unsafe prompt and its closest safe counterpart.

    Attributes:
        category: harm category.
        concept: harmful concept.
        unsafe_prompt: p_U.
        safe_prompt: p_S, with the least possible change of meaning.
        group: pairs of one group never stand on both sides of a split (two wordings of one
            name, say).
    """

    category: str
    concept: str
    unsafe_prompt: str
    safe_prompt: str
    group: str


@runtime_checkable
class PromptWriter(Protocol):
    """Writes prompt pairs for harmful concepts."""

    def write(
        self, concepts: Sequence[tuple[str, str]], pairs_per_concept: int, seed: int
    ) -> Iterable[PromptPair]:
        """Write up to ``pairs_per_concept`` distinct pairs for each (category, concept).

        Raises:
            ValueError: a concept that this writer cannot write about.
        """
        ...


def load_writer(path: str, arguments: dict[str, Any]) -> PromptWriter:
    """Build the writer that ``path`` names.

    Raises:
        ValueError: there is no such class, its arguments do not fit, or it cannot write.
    """
    module, _, name = path.rpartition(".")
    try:
        writer = getattr(import_module(module), name)(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"prompt_writing.writer: cannot build '{path}' with {arguments}: {error}; "
            f"give the import path of a class with a write() method"
        ) from error
    if not isinstance(writer, PromptWriter):
        raise ValueError(f"prompt_writing.writer: '{path}' has no write() method")
    return writer


def pairs_table(pairs: Iterable[PromptPair], seed: int) -> pd.DataFrame:
    """Number the pairs and give each an image seed of its own.

    Returns:
        One row per pair, with the columns :data:`PAIR_COLUMNS`.

    Raises:
        ValueError: nobody wrote anything.
    """
    table = pd.DataFrame(pairs, columns=list(PromptPair._fields))
    if table.empty:
        raise ValueError("the prompt writer wrote no pairs: are there any concepts?")
    table.insert(0, "pair_id", [f"{category}-{i:06d}" for i, category in enumerate(table.category)])
    table["seed"] = [image_seed(seed, pair_id) for pair_id in table.pair_id]
    return table[PAIR_COLUMNS]


def image_seed(seed: int, identity: str) -> int:
    """A 32-bit seed for one image, from the run's seed and the row's identity."""
    digest = hashlib.blake2b(f"{seed}/{identity}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
