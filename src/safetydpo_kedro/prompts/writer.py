"""The interface of prompt writers, which a grammar and a language model share."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pandas as pd

from safetydpo_kedro.prompts.replies import Reason

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


class RejectedPrompt(NamedTuple):
    """What was written, but is not used.

    Attributes:
        category: harm category.
        concept: harmful concept.
        prompt: the text; ``None`` if it is excluded, or if there is none.
        reason: why it is not used.
        source: who wrote it.
    """

    category: str
    concept: str
    prompt: str | None
    reason: Reason
    source: str


@runtime_checkable
class PromptWriter(Protocol):
    """Writes prompt pairs for harmful concepts.

    A class whose constructor has parameters named ``model``, ``templates`` or ``journal`` gets
    the language model, the prompt templates and the journal of replies.
    """

    def write(
        self, concepts: Sequence[tuple[str, str]], pairs_per_concept: int, seed: int
    ) -> Iterable[PromptPair | RejectedPrompt]:
        """Write up to ``pairs_per_concept`` distinct pairs for each (category, concept).

        What is rejected on the way may be yielded too.

        Raises:
            ValueError: a concept that this writer cannot write about.
        """
        ...


def load_writer(
    path: str, arguments: dict[str, Any], resources: Mapping[str, Any] | None = None
) -> PromptWriter:
    """Build the writer that ``path`` names.

    Args:
        path: import path of its class.
        arguments: of its constructor.
        resources: further arguments, given if the constructor has a parameter of that name.

    Raises:
        ValueError: there is no such class, its arguments do not fit, or it cannot write.
    """
    module, _, name = path.rpartition(".")
    try:
        factory = getattr(import_module(module), name)
        wanted = set(inspect.signature(factory).parameters) & set(resources or {})
        writer = factory(**{key: (resources or {})[key] for key in sorted(wanted)}, **arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"prompt_writing.writer: cannot build '{path}' with {arguments}: {error}; "
            f"give the import path of a class with a write() method"
        ) from error
    if not isinstance(writer, PromptWriter):
        raise ValueError(f"prompt_writing.writer: '{path}' has no write() method")
    return writer


def source_name(writer: PromptWriter) -> str:
    """How tables name a writer: its ``source``, or else its class."""
    return getattr(writer, "source", type(writer).__name__)


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
