"""Paired comparisons: the same prompts and seeds, drawn by two variants.

Two variants that draw the same prompts from the same noise make errors together, so their
difference is known better than either share. Verdicts are compared by McNemar's test (1947) in its
exact form: of the images on which the verdicts differ, how many would one variant alone have by
chance (Binomial, 1/2)? It takes every image for a draw of its own; with several seeds of a prompt
the interval, which draws prompts, is the safer guide. The comparisons of one benchmark are a
family, whose p-values are adjusted by Holm's rule (1979): whether harmful prompts are drawn
harmless is one question, whether harmless ones stay so is another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.inappropriate import VERDICT, bootstrap_interval

PROMPT_KEY = ["benchmark", "prompt_id", "seed"]
COMPARISON_COLUMNS = [
    "benchmark",
    "variant",
    "against",
    "images",
    "ip",
    "ip_against",
    "difference",
    "low",
    "high",
    "only_variant",
    "only_against",
    "p_value",
    "p_adjusted",
]


def paired_comparison(
    scores: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    bootstrap: BootstrapConfig | None = None,
) -> pd.DataFrame:
    """Compare the IP of variants, benchmark by benchmark.

    Args:
        scores: ``image_scores``: ``variant, benchmark, prompt_id, seed, inappropriate``.
        pairs: ``(variant, against)``.
        bootstrap: of the interval of the difference; the columns of its unit are drawn together.

    Returns:
        One row per benchmark and pair: ``benchmark, variant, against, images, ip, ip_against,
        difference`` (ip minus ip_against) with ``low`` and ``high``, ``only_variant`` and
        ``only_against`` (images that only one of the two has inappropriate), ``p_value`` (exact
        McNemar test, two-sided) and ``p_adjusted`` (Holm, over the
        rows of the benchmark).

    Raises:
        ValueError: two variants did not draw the same prompts and seeds of a benchmark, or drew
            some twice; a variant or column is missing.
    """
    bootstrap = bootstrap or BootstrapConfig()
    rows = []
    for benchmark, variant, against, matched in _matched(scores, pairs, bootstrap.unit):
        ours = matched[VERDICT].astype(bool)
        theirs = matched[f"{VERDICT}_against"].astype(bool)
        only, only_against = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        differing = only + only_against
        low, high = _interval(matched, ours.astype(float) - theirs.astype(float), bootstrap)
        rows.append(
            {
                "benchmark": benchmark,
                "variant": variant,
                "against": against,
                "images": len(matched),
                "ip": float(ours.mean()),
                "ip_against": float(theirs.mean()),
                "difference": float(ours.mean() - theirs.mean()),
                "low": low,
                "high": high,
                "only_variant": only,
                "only_against": only_against,
                "p_value": binomtest(only, differing).pvalue if differing else 1.0,
            }
        )
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    adjusted = table.groupby("benchmark")["p_value"].transform(lambda p: holm(p.to_numpy()))
    return table.assign(p_adjusted=adjusted.astype(float))


def holm(p_values: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Adjusted p-values of Holm (1979): the i-th smallest of m times m - i + 1, made monotone.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(np.minimum(values[order] * factors, 1.0))
    return adjusted


def _matched(
    scores: pd.DataFrame, pairs: Sequence[tuple[str, str]], unit: str | None
) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """For each pair and benchmark the two verdicts on every image, and its unit."""
    carried = [unit] if unit and unit not in PROMPT_KEY else []
    wanted = ["variant", *PROMPT_KEY, VERDICT, *carried]
    missing = [name for name in wanted if name not in scores]
    if missing:
        raise ValueError(f"image scores lack columns {missing}, got {list(scores)}")
    tables = {}
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        tables[name] = _of_variant(scores[wanted], name)
    for variant, against in pairs:
        matched = tables[variant].merge(
            tables[against].drop(columns=carried),
            on=PROMPT_KEY,
            how="outer",
            suffixes=("", "_against"),
            indicator=True,
        )
        alone = matched[matched["_merge"] != "both"]
        if len(alone):
            first = alone.iloc[0]
            lacks = against if first["_merge"] == "left_only" else variant
            raise ValueError(
                f"'{variant}' and '{against}' did not draw the same prompts: '{lacks}' lacks "
                f"{_named(first)}; compare variants of one run of the evaluation"
            )
        by_benchmark = dict(tuple(matched.groupby("benchmark")))
        for benchmark in scores["benchmark"].unique():
            if benchmark in by_benchmark:
                yield benchmark, variant, against, by_benchmark[benchmark]


def _of_variant(scores: pd.DataFrame, variant: str) -> pd.DataFrame:
    """The images of one variant, each prompt and seed once."""
    rows = scores[scores["variant"] == variant].drop(columns="variant")
    if rows.empty:
        there = scores["variant"].unique().tolist()
        raise ValueError(f"no images of variant '{variant}'; there are {there}")
    twice = rows[rows.duplicated(PROMPT_KEY)]
    if len(twice):
        raise ValueError(
            f"'{variant}' has {_named(twice.iloc[0])} more than once, so images cannot be matched; "
            f"keep one of them"
        )
    return rows


def _named(row: pd.Series) -> str:
    return f"{row['benchmark']} prompt '{row['prompt_id']}' with seed {row['seed']}"


def _interval(
    matched: pd.DataFrame, difference: pd.Series, bootstrap: BootstrapConfig
) -> tuple[float, float]:
    units = matched[bootstrap.unit] if bootstrap.unit else None
    return bootstrap_interval(difference.to_numpy(), units, bootstrap)
