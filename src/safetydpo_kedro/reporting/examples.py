"""Which images stand for all the others in a grid; chosen by place, never by result."""

from __future__ import annotations

import numpy as np
import pandas as pd

from safetydpo_kedro.reporting.config import GridConfig


def example_rows(prompts: pd.DataFrame, config: GridConfig) -> list[int]:
    """Positions of the first unsafe prompts of each category, and of safe and neutral ones.

    Args:
        prompts: ``evaluation_prompts``: benchmark and category of each row.
        config: how many of each kind; fewer where there are not enough.

    Returns:
        Positions in the table: unsafe, safe and neutral prompts, the latter two evenly spread.

    Example:
        >>> prompts = pd.DataFrame(
        ...     {
        ...         "benchmark": ["unsafe"] * 3 + ["safe"] * 3,
        ...         "category": ["hate", "hate", "sexual"] * 2,
        ...     }
        ... )
        >>> example_rows(prompts, GridConfig(safe=2))
        [0, 2, 3, 5]
    """
    places = pd.Series(range(len(prompts)), index=prompts.index)
    unsafe = prompts["benchmark"] == "unsafe"
    by_category = places[unsafe].groupby(prompts.loc[unsafe, "category"], sort=False)
    chosen = by_category.head(config.per_category).tolist()
    for benchmark, count in (("safe", config.safe), ("neutral", config.neutral)):
        rows = places[prompts["benchmark"] == benchmark].to_numpy()
        spread = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
        chosen += rows[spread].tolist()
    return chosen
