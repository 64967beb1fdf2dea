"""One table of the prompt pairs of all sources, and one of what is not used."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS, PromptPair, RejectedPrompt, pairs_table

IMPORTED = "imported"


def collect_pairs(
    outcomes: Iterable[PromptPair | RejectedPrompt],
    source: str,
    seed: int,
    imported: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Number what was written, add what was imported, and apply the exclusion rule to all of it.

    Args:
        outcomes: of a prompt writer; none if nobody writes.
        source: name of the writer.
        seed: of the image seeds of written pairs.
        imported: pairs with the columns ``PAIR_COLUMNS``; they keep their seeds.

    Returns:
        Pairs, with ``PAIR_COLUMNS`` and ``source``; and rejected prompts: ``category, concept,
        prompt, reason, source``, where ``prompt`` is missing for excluded ones.

    Raises:
        ValueError: nothing is left.
    """
    pairs: list[PromptPair] = []
    rejected: list[RejectedPrompt] = []
    for outcome in outcomes:
        if isinstance(outcome, RejectedPrompt):
            rejected.append(outcome)
        else:
            pairs.append(outcome)
    parts = []
    if pairs or imported is None:
        parts.append(pairs_table(pairs, seed).assign(source=source))
    if imported is not None:
        names = IMPORTED + "-" + imported["pair_id"].astype(str).str.removeprefix(f"{IMPORTED}-")
        parts.append(imported[PAIR_COLUMNS].assign(pair_id=names, source=IMPORTED))
    table = pd.concat(parts, ignore_index=True)
    hit = excluded_pairs(table)
    rejected += [
        RejectedPrompt(row.category, row.concept, None, "excluded", row.source)
        for row in table[hit].itertuples()
    ]
    if hit.all():
        raise ValueError(
            f"no prompt pairs are left: {len(table)} written or imported, "
            f"all excluded by rule; use other concepts or another source"
        )
    return table[~hit].reset_index(drop=True), _rejected_table(rejected)


def excluded_pairs(table: pd.DataFrame) -> pd.Series:
    """Whether the exclusion rule hits a pair, judged together with its category and concept."""
    return _excluded(table, ["category", "concept", "unsafe_prompt", "safe_prompt"])


def excluded_prompts(table: pd.DataFrame) -> pd.Series:
    """Whether the exclusion rule hits a single prompt.

    Judged together with its concept, and with its category where the table has one.
    """
    return _excluded(table, [n for n in ("category", "concept", "prompt") if n in table])


def _excluded(table: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Whether the rule hits the texts of some columns, taken together; what is missing is none."""
    rows = table[columns].itertuples(index=False, name=None)
    hits = [is_excluded(*(text for text in row if isinstance(text, str))) for row in rows]
    return pd.Series(hits, index=table.index, dtype=bool)


def refuse_excluded(hit: pd.Series, what: str) -> None:
    """The last guard before anything is drawn.

    Raises:
        ValueError: any row is hit; the message has counts and no text.
    """
    if hit.any():
        raise ValueError(
            f"{int(hit.sum())} of {len(hit)} {what} are excluded by rule and must not be drawn: "
            f"make the table again with `kedro run --pipelines dataset_generation`"
        )


def _rejected_table(rejected: list[RejectedPrompt]) -> pd.DataFrame:
    table = pd.DataFrame(rejected, columns=list(RejectedPrompt._fields))
    return table.astype("string")  # the same columns of the same type, even without any row
