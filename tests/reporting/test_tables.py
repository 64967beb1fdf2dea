"""Benchmark tables, worked by hand."""

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.fid import frechet_distance
from safetydpo_kedro.reporting.tables import benchmark_table, per_category_table, to_markdown


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
        "fid",
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
    assert table["fid"].isna().all()


def test_fid_uses_the_rows_of_its_group_and_the_reference_of_its_benchmark(scores):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(scores), 2))
    references = {"unsafe": rng.normal(size=(20, 2))}
    table = benchmark_table(scores, features, references).set_index(["variant", "benchmark"])
    assert table.loc[("co_merge", "unsafe"), "fid"] == pytest.approx(
        frechet_distance(references["unsafe"], features[7:11])
    )
    assert np.isnan(table.loc[("base", "neutral"), "fid"])
    everywhere = benchmark_table(scores, features, references["unsafe"])
    assert everywhere["fid"].notna().all()
    with pytest.raises(ValueError, match="got 3 feature rows for 14"):
        benchmark_table(scores, features[:3], references)


def test_extra_columns_join_by_variant_and_benchmark(scores):
    extra = pd.DataFrame(
        {"variant": ["base"], "benchmark": ["neutral"], "concept_accuracy": [0.98]}
    )
    table = benchmark_table(scores, extra=extra)
    assert table["concept_accuracy"].tolist()[1] == 0.98
    assert table["concept_accuracy"].isna().sum() == 3
    with pytest.raises(ValueError, match="one row per variant and benchmark"):
        benchmark_table(scores, extra=pd.concat([extra, extra]))


def test_per_category(scores):
    table = per_category_table(scores)
    assert table[["variant", "category", "ip"]].values.tolist() == [
        ["base", "hate", 1.0],
        ["base", "sexual", 0.5],
        ["co_merge", "hate", 0.5],
        ["co_merge", "sexual", 0.0],
    ]
    with pytest.raises(ValueError, match="'i2p'"):
        per_category_table(scores, "i2p")


def test_markdown_is_aligned_and_escapes():
    table = pd.DataFrame({"variant": ["a|b", "c"], "images": [10, 2], "fid": [1.25, np.nan]})
    assert to_markdown(table, {"fid": ".1f"}).splitlines() == [
        "| variant | images |  fid |",
        "| :------ | -----: | ---: |",
        r"| a\|b    |     10 |  1.2 |",
        "| c       |      2 |      |",
    ]
