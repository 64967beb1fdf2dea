"""Tables of an evaluation: one row per variant and benchmark, or per variant and category."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetydpo_kedro.metrics.clip_score import mean_clip_score
from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.inappropriate import inappropriate_probability

KEY = ["variant", "benchmark"]


def benchmark_table(
    scores: pd.DataFrame,
    features: NDArray[np.floating] | None = None,
    reference_features: NDArray[np.floating] | Mapping[str, NDArray[np.floating]] | None = None,
    extra: pd.DataFrame | None = None,
    bootstrap: BootstrapConfig | None = None,
) -> pd.DataFrame:
    """Summarise judged images.

    Args:
        scores: ``image_scores``, one row per image.
        features: ``[len(scores), D]`` image features in the order of the rows, for FID.
        reference_features: ``[M, D]`` features of reference images, or such an array by
            benchmark. A benchmark without reference images, or with a single image, has no FID.
        extra: further columns by variant and benchmark, such as concept accuracy.
        bootstrap: how the interval of IP is resampled.

    Returns:
        One row per variant and benchmark in order of first appearance: ``variant, benchmark,
        images, ip, ip_low, ip_high, ip_<judge>…, fid, clip_score`` and the extra columns. IP in
        [0, 1], CLIPScore as 100·cos, NaN where a measure was not taken.

    Raises:
        ValueError: ``features`` do not match the rows, or ``extra`` repeats or lacks a key.
    """
    table = inappropriate_probability(scores, KEY, bootstrap)
    distances, fits = [], []
    for variant, benchmark in table[KEY].itertuples(index=False):
        rows = ((scores["variant"] == variant) & (scores["benchmark"] == benchmark)).to_numpy()
        reference = (
            reference_features.get(benchmark)
            if isinstance(reference_features, Mapping)
            else reference_features
        )
        distances.append(_frechet(features, reference, rows))
        fits.append(
            mean_clip_score(scores.loc[rows, "clip_score"].to_numpy())
            if "clip_score" in scores
            else np.nan
        )
    table = table.assign(fid=distances, clip_score=fits)
    if extra is None:
        return table
    if not set(KEY) <= set(extra) or extra.duplicated(KEY).any():
        raise ValueError(
            f"extra columns need one row per {' and '.join(KEY)}, got columns {list(extra)} "
            f"and {len(extra)} rows"
        )
    return table.merge(extra, on=KEY, how="left")


def per_category_table(
    scores: pd.DataFrame, benchmark: str = "unsafe", bootstrap: BootstrapConfig | None = None
) -> pd.DataFrame:
    """IP by variant and category on one benchmark.

    Returns:
        One row per variant and category: ``variant, category, images, ip, ip_low, ip_high,
        ip_<judge>…``.

    Raises:
        ValueError: the table has no rows of that benchmark.
    """
    rows = scores[scores["benchmark"] == benchmark]
    if rows.empty:
        found = sorted(scores["benchmark"].unique())
        raise ValueError(f"no judged images of benchmark '{benchmark}'; there are {found}")
    return inappropriate_probability(rows, ["variant", "category"], bootstrap)


def to_markdown(
    table: pd.DataFrame, formats: Mapping[str, str] | None = None, default: str = ".3f"
) -> str:
    """A Markdown table, aligned so that it also reads as plain text.

    Args:
        table: its index is not shown.
        formats: format specification by column, for example ``{"fid": ".1f"}``.
        default: format specification of the other columns of floats.

    Returns:
        Lines ending with a newline. Numbers stand on the right; missing ones are empty.

    Example:
        >>> table = pd.DataFrame({"variant": ["base", "co_merge"], "ip": [0.9375, 0.1]})
        >>> print(to_markdown(table, {"ip": ".2f"}))
        | variant  |   ip |
        | :------- | ---: |
        | base     | 0.94 |
        | co_merge | 0.10 |
        <BLANKLINE>
    """
    formats = formats or {}
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table]
    cells = [[str(column) for column in table]]
    for row in table.itertuples(index=False, name=None):
        cells.append(
            [
                format_cell(value, formats.get(column, default))
                for column, value in zip(table, row, strict=True)
            ]
        )
    widths = [max(4, *(len(row[i]) for row in cells)) for i in range(table.shape[1])]
    rule = [
        "-" * (width - 1) + ":" if right else ":" + "-" * (width - 1)
        for width, right in zip(widths, numeric, strict=True)
    ]
    lines = [
        "| " + " | ".join(_aligned(row, widths, numeric)) + " |"
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(lines) + "\n"


def format_cell(value: object, specification: str) -> str:
    """One value as text: floats by ``specification``, missing ones empty, bars escaped."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return format(float(value), specification)
    return str(value).replace("|", "\\|")


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ]


def _frechet(
    features: NDArray[np.floating] | None,
    reference: NDArray[np.floating] | None,
    rows: NDArray[np.bool_],
) -> float:
    if features is None or reference is None or rows.sum() < 2:
        return float("nan")
    if len(features) != len(rows):
        raise ValueError(f"got {len(features)} feature rows for {len(rows)} judged images")
    # Imported here because it loads torch, which a table without FID does not need.
    from safetydpo_kedro.metrics.fid import frechet_distance

    return frechet_distance(reference, features[rows])


def dataset_table(
    prompt_pairs: pd.DataFrame,
    train_pairs: pd.DataFrame,
    test_prompts: pd.DataFrame,
    pair_scores: pd.DataFrame,
) -> pd.DataFrame:
    """What the training set consists of.

    Args:
        prompt_pairs: all pairs that were written: ``category, concept``.
        train_pairs: those of training.
        test_prompts: those held out.
        pair_scores: two judged images per training pair: ``category, kind`` (unsafe or safe),
            ``inappropriate``.

    Returns:
        One row per category and one of the total: ``category, concepts, written, train, test,
        ip_unsafe, ip_safe`` (IP of the images of p_U and of p_S).
    """
    ip = pair_scores.pivot_table(
        index="category", columns="kind", values="inappropriate", aggfunc="mean"
    )
    table = pd.DataFrame(
        {
            "concepts": prompt_pairs.groupby("category", sort=False)["concept"].nunique(),
            "written": prompt_pairs.groupby("category", sort=False).size(),
            "train": train_pairs.groupby("category").size(),
            "test": test_prompts.groupby("category").size(),
            "ip_unsafe": ip["unsafe"],
            "ip_safe": ip["safe"],
        }
    ).loc[prompt_pairs["category"].unique()]
    counts = table[["concepts", "written", "train", "test"]].fillna(0).astype(int)
    total = pd.DataFrame(counts.sum()).T.set_axis(["total"])
    overall = pair_scores.groupby("kind")["inappropriate"].mean()
    total[["ip_unsafe", "ip_safe"]] = overall["unsafe"], overall["safe"]
    table = pd.concat([counts.join(table[["ip_unsafe", "ip_safe"]]), total])
    return table.rename_axis("category").reset_index()
