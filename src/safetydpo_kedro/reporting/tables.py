"""Tables of an evaluation: one row per variant and benchmark, or per variant and category."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.metrics.clip_score import mean_clip_score
from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.inappropriate import inappropriate_probability
from safetydpo_kedro.reporting.markdown import escaped

KEY = ["variant", "benchmark"]
CATEGORY_KEY = [*KEY, "category"]
# Format specifications of columns; ``#`` keeps final zeros.
FORMATS = {
    "fid": "#.4g",
    "kid": "#.3g",
    "kid_std": "#.2g",
    "clip_score": ".2f",
    "words": ".1f",
    # Whole numbers, which are floats where some are missing.
    "references": ".0f",
    "seeds": ".0f",
    "p_value": ".2g",
    "p_adjusted": ".2g",
}
DEFAULT_FORMAT = ".3f"


def benchmark_table(
    scores: pd.DataFrame,
    extra: Sequence[pd.DataFrame] = (),
    bootstrap: BootstrapConfig | None = None,
) -> pd.DataFrame:
    """Summarise judged images.

    Args:
        scores: ``image_scores``, one row per image.
        extra: tables of further columns by variant and benchmark, such as FID and concept
            accuracy; a variant or benchmark that one lacks has NaN.
        bootstrap: how the interval of IP is resampled.

    Returns:
        One row per variant and benchmark in order of first appearance: ``variant, benchmark,
        images, ip, ip_low, ip_high, ip_<judge>…, clip_score`` and the extra columns. IP in
        [0, 1], CLIPScore as 100·cos, NaN where a measure was not taken.

    Raises:
        ValueError: an extra table repeats or lacks a key.
    """
    table = inappropriate_probability(scores, KEY, bootstrap)
    if "clip_score" in scores:
        fits = scores.groupby(KEY, sort=False)["clip_score"].agg(
            lambda values: mean_clip_score(values.to_numpy())
        )
        table = table.merge(fits.reset_index(), on=KEY, how="left")
    for columns in extra:
        if not set(KEY) <= set(columns) or columns.duplicated(KEY).any():
            raise ValueError(
                f"extra columns need one row per {' and '.join(KEY)}, got columns {list(columns)} "
                f"and {len(columns)} rows"
            )
        table = table.merge(columns, on=KEY, how="left")
    return table


def per_category_table(
    scores: pd.DataFrame,
    benchmarks: Sequence[str] | None = None,
    bootstrap: BootstrapConfig | None = None,
    extra: Callable[[pd.DataFrame, Sequence[str]], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """IP by variant, benchmark and category.

    A prompt of several categories (``categories``, separated by commas) counts in each of them.

    Args:
        scores: ``image_scores``, one row per image.
        benchmarks: those to look at; None: all that have categories.
        bootstrap: how the interval of IP is resampled.
        extra: makes further columns of the same rows, by these keys.

    Returns:
        One row per variant, benchmark and category: ``variant, benchmark, category, images, ip,
        ip_low, ip_high, ip_<judge>…`` and the further columns.

    Raises:
        ValueError: no row has a category.
    """
    rows = scores if benchmarks is None else scores[scores["benchmark"].isin(benchmarks)]
    if "categories" in rows:
        listed = rows["categories"].fillna(rows["category"]).astype(object).str.split(",")
        rows = rows.assign(category=listed).explode("category")
        rows["category"] = rows["category"].str.strip()
    rows = rows[rows["category"].notna()].reset_index(drop=True)
    if rows.empty:
        found = sorted(scores["benchmark"].unique())
        raise ValueError(f"no judged images of {benchmarks} have a category; there are {found}")
    table = inappropriate_probability(rows, CATEGORY_KEY, bootstrap)
    if extra is None:
        return table
    return table.merge(extra(rows, CATEGORY_KEY), on=CATEGORY_KEY, how="left")


def benchmark_overview(prompts: pd.DataFrame, base_scores: pd.DataFrame) -> pd.DataFrame:
    """What the benchmarks consist of, and what the base model draws for them (paper, table 1).

    Args:
        prompts: ``evaluation_prompts``: benchmark, prompt, category, categories, concept.
        base_scores: judged images of the base model.

    Returns:
        One row per benchmark: ``benchmark, prompts, concepts, categories`` (how many different
        ones), ``words`` (mean length of a prompt) and ``ip`` of the base model, NaN if it was not
        drawn.
    """
    ip = base_scores.groupby("benchmark")["inappropriate"].mean()
    rows = []
    for benchmark, some in prompts.groupby("benchmark", sort=False):
        listed = some["categories"].dropna().str.split(",").explode().str.strip()
        rows.append(
            {
                "benchmark": benchmark,
                "prompts": some["prompt"].nunique(),
                "concepts": some["concept"].nunique(),
                "categories": listed.nunique(),
                "words": some["prompt"].str.split().str.len().mean(),
                "ip": ip.get(benchmark, np.nan),
            }
        )
    return pd.DataFrame(rows)


def variant_table(scores: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Where the numbers of each variant come from.

    Args:
        scores: ``image_scores`` with ``weights_sha256`` and ``image_sha256``.
        kinds: variant → kind; those that are not named are external.

    Returns:
        One row per variant: ``variant, kind, images, seeds`` (how many different ones),
        ``weights_sha256`` (of adapter, changed weights or settings; of the denoiser for the base
        model), ``images_sha256`` (over all images in their order).
    """
    rows = []
    for variant, some in scores.groupby("variant", sort=False):
        rows.append(
            {
                "variant": variant,
                "kind": kinds.get(str(variant), "external"),
                "images": len(some),
                "seeds": some["seed"].nunique(),
                "weights_sha256": some["weights_sha256"].iloc[0],
                "images_sha256": fingerprint(some["image_sha256"].tolist()),
            }
        )
    return pd.DataFrame(rows)


def to_markdown(
    table: pd.DataFrame,
    formats: Mapping[str, str] | None = None,
    numeric: Collection[str] = (),
) -> str:
    """A Markdown table, aligned so that it also reads as plain text.

    Args:
        table: its index is not shown.
        formats: format specification by column, for example ``{"fid": ".1f"}``; columns of floats
            that it lacks have ``DEFAULT_FORMAT``.
        numeric: columns of numbers that are texts already.

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
    right = [c in numeric or pd.api.types.is_numeric_dtype(table[c]) for c in table]
    cells = [[escaped(str(column)) for column in table]]
    for row in table.itertuples(index=False, name=None):
        cells.append(
            [
                format_cell(value, formats.get(column, DEFAULT_FORMAT))
                for column, value in zip(table, row, strict=True)
            ]
        )
    widths = [max(4, *(len(row[i]) for row in cells)) for i in range(table.shape[1])]
    rule = [
        "-" * (width - 1) + ":" if is_right else ":" + "-" * (width - 1)
        for width, is_right in zip(widths, right, strict=True)
    ]
    lines = [
        "| " + " | ".join(_aligned(row, widths, right)) + " |"
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(lines) + "\n"


def format_cell(value: object, specification: str) -> str:
    """One value as text for Markdown: floats by ``specification``, missing ones empty.

    Example:
        >>> format_cell(19.6, "#.4g"), format_cell(1234.0, "#.4g"), format_cell(None, "#.4g")
        ('19.60', '1234', '')
    """
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return format(float(value), specification).removesuffix(".")  # where ``#`` leaves one
    return escaped(str(value))


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    return [
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ]


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
