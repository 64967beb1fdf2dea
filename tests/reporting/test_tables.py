"""Benchmark tables, worked by hand."""

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.reporting.tables import (
    FORMATS,
    benchmark_overview,
    benchmark_table,
    per_category_table,
    to_markdown,
    variant_table,
)


@pytest.fixture
def scores():
    """Two variants; unsafe images in two categories and neutral ones without a category."""
    rows = []
    flags = {"base": [1, 1, 1, 0], "co_merge": [0, 1, 0, 0]}
    for variant, unsafe in flags.items():
        for i, flag in enumerate(unsafe):
            rows.append([variant, "unsafe", f"u{i}", "hate" if i < 2 else "sexual", flag, 20.0 + i])
        for i in range(3):
            rows.append([variant, "neutral", f"n{i}", None, 0, 30.0])
    columns = ["variant", "benchmark", "prompt_id", "category", "flag", "clip_score"]
    table = pd.DataFrame(rows, columns=columns)
    flag = table.pop("flag").astype(bool)
    return table.assign(
        q16_inappropriate=flag,
        nudenet_inappropriate=flag & (table["prompt_id"] == "u1"),
        inappropriate=flag,
    )


def test_one_row_per_variant_and_benchmark(scores):
    table = benchmark_table(scores, bootstrap=BootstrapConfig(resamples=50))
    assert list(table) == [
        "variant",
        "benchmark",
        "images",
        "ip",
        "ip_low",
        "ip_high",
        "ip_q16",
        "ip_nudenet",
        "clip_score",
    ]
    assert table[["variant", "benchmark", "images"]].values.tolist() == [
        ["base", "unsafe", 4],
        ["base", "neutral", 3],
        ["co_merge", "unsafe", 4],
        ["co_merge", "neutral", 3],
    ]
    assert table["ip"].tolist() == [0.75, 0, 0.25, 0]
    assert table["ip_nudenet"].tolist() == [0.25, 0, 0.25, 0]
    assert table["clip_score"].tolist() == [21.5, 30, 21.5, 30]


def test_extra_columns_join_by_variant_and_benchmark(scores):
    extra = pd.DataFrame(
        {"variant": ["base"], "benchmark": ["neutral"], "concept_accuracy": [0.98]}
    )
    distances = pd.DataFrame({"variant": ["co_merge"], "benchmark": ["unsafe"], "fid": [3.0]})
    table = benchmark_table(scores, [extra, distances])
    assert table["concept_accuracy"].tolist()[1] == 0.98
    assert table["concept_accuracy"].isna().sum() == 3
    assert table["fid"].tolist()[2] == 3.0 and table["fid"].isna().sum() == 3
    with pytest.raises(ValueError, match="one row per variant and benchmark"):
        benchmark_table(scores, [pd.concat([extra, extra])])


def test_per_category(scores):
    table = per_category_table(scores)
    assert table[["variant", "benchmark", "category", "ip"]].values.tolist() == [
        ["base", "unsafe", "hate", 1.0],
        ["base", "unsafe", "sexual", 0.5],
        ["co_merge", "unsafe", "hate", 0.5],
        ["co_merge", "unsafe", "sexual", 0.0],
    ]
    with pytest.raises(ValueError, match="'i2p'"):
        per_category_table(scores, ["i2p"])


def test_a_prompt_of_several_categories_counts_in_each(scores):
    several = scores.assign(categories=scores["category"])
    several.loc[several["prompt_id"] == "u3", "categories"] = "sexual, violence"
    table = per_category_table(several).set_index(["variant", "category"])
    assert table.loc["base", "images"].to_dict() == {"hate": 2, "sexual": 2, "violence": 1}
    assert table.loc[("base", "violence"), "ip"] == 0
    extra = per_category_table(
        several, extra=lambda rows, by: rows.groupby(by)["clip_score"].max().reset_index()
    )
    assert extra["clip_score"].tolist() == [21, 23, 23] * 2


def test_the_overview_counts_prompts_concepts_and_categories(scores):
    prompts = pd.DataFrame(
        {
            "benchmark": ["unsafe"] * 3 + ["coco"],
            "prompt": ["a b", "a b", "c d e", "f"],
            "concept": ["x", "x", "y", "caption"],
            "category": ["hate", "hate", "sexual", None],
            "categories": ["hate", "hate", "sexual,violence", None],
        }
    )
    table = benchmark_overview(prompts, scores[scores["variant"] == "base"])
    assert table.iloc[0].to_dict() == {
        "benchmark": "unsafe",
        "prompts": 2,
        "concepts": 2,
        "categories": 3,
        "words": pytest.approx(7 / 3),
        "ip": 0.75,
    }
    assert table.iloc[1][["prompts", "categories"]].tolist() == [1, 0]
    assert np.isnan(table.iloc[1]["ip"])


def test_variants_are_told_apart_by_what_draws_and_what_was_drawn(scores):
    marked = scores.assign(seed=range(len(scores)), weights_sha256=scores["variant"] + "-weights")
    marked["image_sha256"] = marked["prompt_id"]
    table = variant_table(marked, {"base": "base"})
    assert table[["variant", "kind", "images", "weights_sha256"]].values.tolist() == [
        ["base", "base", 7, "base-weights"],
        ["co_merge", "external", 7, "co_merge-weights"],
    ]
    assert table["images_sha256"].nunique() == 1  # the same images
    other = variant_table(marked.replace({"image_sha256": {"n2": "another"}}), {})
    assert other["images_sha256"].tolist() != table["images_sha256"].tolist()


def test_markdown_is_aligned_and_escapes():
    table = pd.DataFrame({"variant": ["a|b", "c"], "images": [10, 2], "fid": [1.25, np.nan]})
    assert to_markdown(table, {"fid": ".1f"}).splitlines() == [
        "| variant | images |  fid |",
        "| :------ | -----: | ---: |",
        r"| a\|b    |     10 |  1.2 |",
        "| c       |      2 |      |",
    ]


def test_markdown_has_digits_behind_every_point():
    table = pd.DataFrame({"fid": [1234.0, 19.6], "kid": [123.0, 0.05]})
    assert to_markdown(table, FORMATS).splitlines()[2:] == [
        "|  1234 |    123 |",
        "| 19.60 | 0.0500 |",
    ]
