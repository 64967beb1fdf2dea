"""Which prompts the grid and the report show, and their images side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from safetydpo_kedro.images import decode_images
from safetydpo_kedro.pipelines.evaluation.parameters import BenchmarksParameters
from safetydpo_kedro.reporting.config import GridConfig
from safetydpo_kedro.reporting.examples import example_rows


def choose_examples(
    prompts: pd.DataFrame, benchmarks: BenchmarksParameters, grid: GridConfig
) -> list[int]:
    """Positions of the prompts that are shown: some of every benchmark.

    Args:
        prompts: ``evaluation_prompts``: benchmark and category of each row.
        benchmarks: which of them are harmful; of these the first prompts of each category are
            shown, and prompts without a category count as one.
        grid: how many; imported benign benchmarks get as many as ``neutral``.

    Returns:
        Positions in the table, harmful benchmarks first.
    """
    chosen: list[int] = []
    for benchmark in (*benchmarks.harmful, *benchmarks.benign):
        places = np.flatnonzero(prompts["benchmark"] == benchmark)
        kind = "safe" if benchmark == "safe" else "neutral"
        kind = "unsafe" if benchmark in benchmarks.harmful else kind
        rows = prompts.iloc[places]
        rows = rows.assign(benchmark=kind, category=rows["category"].fillna("none"))
        chosen += places[example_rows(rows, grid)].tolist()
    return chosen


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
    for table in tables:
        for name, drawn in table.groupby("variant", sort=False) if len(table) else ():
            some = decode_images(drawn["image"].iloc[list(rows)])
            first = next(iter(images.values()), some)
            images[str(name)] = _resized(some, *first.shape[1:3])
    return images


def _resized(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if images.shape[1:3] == (height, width):
        return images
    method = Image.Resampling.LANCZOS
    return np.stack([Image.fromarray(i).resize((width, height), method) for i in images])
