"""A grammar that writes the prompts of the pictogram world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

import pandas as pd
import torch

from safetydpo_kedro.pictograms.captions import TEMPLATES, caption
from safetydpo_kedro.pictograms.world import BACKGROUNDS, Concept, concept_index, concepts
from safetydpo_kedro.prompts.writer import PromptPair


class GrammarWriter:
    """Writes the unsafe prompt of a concept and the same prompt about its safe mate.

    The k-th name of the concept stands opposite the k-th name of the mate, and pairs of one
    name form a group, so that a split holds out whole names.
    """

    def write(
        self, concepts: Sequence[tuple[str, str]], pairs_per_concept: int, seed: int
    ) -> Iterator[PromptPair]:
        """See :class:`safetydpo_kedro.prompts.writer.PromptWriter`."""
        for row, (category, concept) in enumerate(concepts):
            unsafe = _find(concept, category)
            safe = _find(unsafe.mate, category)
            wordings = list(product(range(len(unsafe.names)), BACKGROUNDS, range(len(TEMPLATES))))
            generator = torch.Generator().manual_seed(seed * 100_003 + row)
            order = torch.randperm(len(wordings), generator=generator)
            for i in order[:pairs_per_concept].tolist():
                name, background, template = wordings[i]
                yield PromptPair(
                    category=category,
                    concept=concept,
                    unsafe_prompt=caption(unsafe.names[name], background, template),
                    safe_prompt=caption(safe.names[name], background, template),
                    group=unsafe.names[name],
                )


def concept_table() -> pd.DataFrame:
    """The unsafe concepts: ``category, concept``."""
    rows = [(c.category, c.concept) for c in concepts() if c.role == "unsafe"]
    return pd.DataFrame(rows, columns=["category", "concept"])


def neutral_prompt_table() -> pd.DataFrame:
    """All prompts about neutral concepts: ``concept, prompt, group``."""
    rows = [
        (c.concept, caption(name, background, template), name)
        for c in concepts()
        if c.role == "neutral"
        for name, background, template in product(c.names, BACKGROUNDS, range(len(TEMPLATES)))
    ]
    return pd.DataFrame(rows, columns=["concept", "prompt", "group"])


def describe(prompt: str) -> tuple[str, str] | None:
    """Concept and background that a caption of the grammar asks for; None for other text."""
    return _meanings().get(prompt)


@cache
def _meanings() -> dict[str, tuple[str, str]]:
    return {
        caption(name, background, template): (c.concept, background)
        for c in concepts()
        for name, background, template in product(c.names, BACKGROUNDS, range(len(TEMPLATES)))
    }


def _find(concept: str, category: str) -> Concept:
    if concept not in concept_index():
        raise ValueError(
            f"concepts: the pictogram world has no concept '{concept}' (category '{category}'); "
            f"it knows {sorted(concept_index())}"
        )
    return concepts()[concept_index()[concept]]
