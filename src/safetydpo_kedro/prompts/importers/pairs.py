"""Tables of prompt pairs, and the groups that keep a split from leaking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from safetydpo_kedro.prompts.importers.schema import PairRow
from safetydpo_kedro.prompts.split import normalise
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS


def import_table(pairs: Iterable[PairRow]) -> pd.DataFrame:
    """Pairs of one source as a table with the columns ``PAIR_COLUMNS``."""
    rows = [[getattr(pair, name) for name in PAIR_COLUMNS] for pair in pairs]
    return group_pairs(pd.DataFrame(rows, columns=PAIR_COLUMNS).astype({"seed": "int64"}))


def concatenate(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Pairs of several sources as one table, with groups over all of them."""
    return group_pairs(pd.concat(tables, ignore_index=True))


def group_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Give pairs the same ``group`` if they share an unsafe or a safe prompt, in any spelling.

    Sharing is passed on: if A shares a prompt with B and B with C, all three are one group, which
    is named after the first of its pairs.
    """
    parents = list(range(len(pairs)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for column in ("unsafe_prompt", "safe_prompt"):
        first: dict[str, int] = {}
        for row, prompt in enumerate(pairs[column]):
            one, other = root(first.setdefault(normalise(prompt), row)), root(row)
            parents[max(one, other)] = min(one, other)
    names = pairs["pair_id"].to_numpy(dtype=object)
    return pairs.assign(group=names[[root(row) for row in range(len(pairs))]])
