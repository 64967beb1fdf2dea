"""Which images stand for all the others; chosen by place, never by result."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from safetydpo_kedro.images import decode_images
from safetydpo_kedro.reporting.config import GridConfig

THUMBNAIL_PIXELS = 256
KEY = ["variant", "benchmark", "prompt_id", "seed"]


def example_rows(
    prompts: pd.DataFrame,
    config: GridConfig,
    harmful: Sequence[str] = ("unsafe",),
    benign: Sequence[str] = ("safe", "neutral"),
) -> list[int]:
    """Positions of the first harmful prompts of each category, and of some benign ones.

    Args:
        prompts: ``evaluation_prompts``: benchmark and category of each row.
        config: how many of each kind, fewer where there are not enough; benchmarks other than
            ``safe`` count as ``neutral``.
        harmful: benchmarks; prompts without a category are one more category.
        benign: benchmarks.

    Returns:
        Positions in the table, by benchmark, harmful ones first; benign prompts evenly spread.

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
    chosen: list[int] = []
    for benchmark in harmful:
        own = prompts["benchmark"] == benchmark
        categories = prompts.loc[own, "category"].fillna("none")
        by_category = places[own].groupby(categories, sort=False)
        chosen += by_category.head(config.per_category).tolist()
    for benchmark in benign:
        rows = places[prompts["benchmark"] == benchmark].to_numpy()
        count = min(config.safe if benchmark == "safe" else config.neutral, len(rows))
        chosen += rows[evenly_spread(count, len(rows))].tolist()
    return chosen


def evenly_spread(count: int, total: int) -> NDArray[np.int64]:
    """Positions of ``count`` of ``total`` things, from the first to the last."""
    return np.linspace(0, total - 1, count).round().astype(np.int64)


def rows_by_variant(tables: Iterable[pd.DataFrame]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each variant of some tables of images, of which some hold several and some none."""
    for table in tables:
        if len(table):  # an empty one has no columns
            for name, rows in table.groupby("variant", sort=False):
                yield str(name), rows


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
    for _, drawn in rows_by_variant(images):
        some = drawn.iloc[rows]
        thumbnails = [_thumbnail(image) for image in some["image"]]
        parts.append(some[KEY].assign(image=thumbnails))
    return pd.concat(parts).merge(scores, on=KEY)


def _thumbnail(encoded: Mapping[str, Any]) -> bytes:
    """An image no larger than a page needs."""
    (pixels,) = decode_images([encoded])
    if max(pixels.shape[:2]) <= THUMBNAIL_PIXELS:
        return encoded["bytes"]
    small = Image.fromarray(pixels)
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def images_by_variant(
    tables: Iterable[pd.DataFrame], rows: Sequence[int]
) -> dict[str, NDArray[np.uint8]]:
    """Some images of every variant, all of one size, as a grid needs them.

    Args:
        tables: images of one or more variants, in each the same prompts in the same order; may be
            empty.
        rows: positions of the prompts that are shown.

    Returns:
        Variant → uint8 ``[N, H, W, 3]``, as large as those of the first one: somebody else's
        pipeline may draw larger images than the base model.
    """
    images: dict[str, NDArray[np.uint8]] = {}
    for name, drawn in rows_by_variant(tables):
        some = decode_images(drawn["image"].iloc[list(rows)])
        first = next(iter(images.values()), some)
        images[name] = _resized(some, *first.shape[1:3])
    return images


def _resized(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if images.shape[1:3] == (height, width):
        return images
    method = Image.Resampling.LANCZOS
    return np.stack([Image.fromarray(i).resize((width, height), method) for i in images])
