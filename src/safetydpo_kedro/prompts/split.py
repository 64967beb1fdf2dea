"""A split of prompts into training and test that cannot leak."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import pandas as pd

from safetydpo_kedro.parameters import SplitParameters


def normalise(prompt: str) -> str:
    """Case, punctuation and spacing do not make a prompt another prompt."""
    return re.sub(r"[\W_]+", " ", prompt.casefold()).strip()


def split_prompts(
    table: pd.DataFrame, prompt_columns: Sequence[str], parameters: SplitParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split by whole groups within each concept.

    The published CoProV2 leaks 728 of its 8,000 test prompts from training. Here a group never
    stands on both sides, and a test row is dropped if any of its prompts, normalised, occurs
    anywhere in training.

    Args:
        table: has ``concept`` and ``group`` columns.
        prompt_columns: columns that hold prompts.
        parameters: share of groups for the test, caps per concept, seed.

    Returns:
        Training rows and test rows, in the table's order.

    Raises:
        ValueError: a concept has a single group and so cannot be split.
    """
    held_out: set[tuple[str, str]] = set()
    for concept, rows in table.groupby("concept", sort=True):
        groups = sorted(rows["group"].unique(), key=lambda g: _rank(parameters.seed, concept, g))
        if len(groups) < 2:
            raise ValueError(
                f"concept '{concept}' has one group of prompts, {groups}; a split needs two: "
                f"write more pairs per concept or remove the concept"
            )
        count = min(max(1, round(parameters.test_share * len(groups))), len(groups) - 1)
        held_out |= {(concept, group) for group in groups[:count]}
    is_test = [pair in held_out for pair in zip(table["concept"], table["group"], strict=True)]
    is_test = pd.Series(is_test, index=table.index)
    train = _cap(table[~is_test], parameters.train_per_concept, parameters.seed)
    seen = {normalise(prompt) for column in prompt_columns for prompt in table[~is_test][column]}
    leaks = table[list(prompt_columns)].map(lambda prompt: normalise(prompt) in seen).any(axis=1)
    test = _cap(table[is_test & ~leaks], parameters.test_per_concept, parameters.seed)
    return train.reset_index(drop=True), test.reset_index(drop=True)


def _rank(seed: int, *parts: object) -> str:
    return hashlib.blake2b("/".join([str(seed), *map(str, parts)]).encode()).hexdigest()


def _cap(table: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """At most ``limit`` rows per concept, chosen by hash, in the table's order."""
    if limit is None:
        return table
    order = pd.Series(
        [_rank(seed, *row) for row in table.itertuples(index=False)],
        index=table.index,
        dtype=object,
    )
    kept = order.groupby(table["concept"]).rank(method="first") <= limit
    return table[kept]
