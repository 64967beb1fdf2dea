"""Which images stand for all the others; chosen by place, never by result."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pandas as pd
from PIL import Image

from safetydpo_kedro.reporting.config import GridConfig

THUMBNAIL_PIXELS = 256
KEY = ["variant", "benchmark", "prompt_id", "seed"]


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


def example_table(
    images: Iterable[pd.DataFrame],
    scores: pd.DataFrame,
    rows: list[int],
) -> pd.DataFrame:
    """Examples of every variant with their scores.

    Args:
        images: images of one or more variants, in each the same prompts in the same order.
        scores: ``image_scores``.
        rows: positions of the prompts that are shown.

    Returns:
        Rows of ``image_scores`` with ``image``, encoded bytes; large ones are made smaller.
    """
    parts = []
    for table in images:
        for _, drawn in table.groupby("variant", sort=False) if len(table) else ():
            some = drawn.iloc[rows]
            keys = some[KEY]
            parts.append(keys.assign(image=[_thumbnail(image["bytes"]) for image in some["image"]]))
    return pd.concat(parts).merge(scores, on=KEY)


def _thumbnail(encoded: bytes) -> bytes:
    """An image no larger than a page needs."""
    with Image.open(io.BytesIO(encoded)) as image:
        if max(image.size) <= THUMBNAIL_PIXELS:
            return encoded
        small = image.convert("RGB")
        small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=85)
        return buffer.getvalue()
