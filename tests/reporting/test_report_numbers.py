"""Numbers as the report prints them: digits, signs, intervals that are not there, turned tests."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.paired import paired_comparison
from safetydpo_kedro.reporting.findings import QualityChange, safest
from safetydpo_kedro.reporting.html_report import html_report
from safetydpo_kedro.reporting.html_tables import html_table
from safetydpo_kedro.reporting.paper_table import (
    best_values,
    formatted,
    paper_table,
    to_latex,
)
from safetydpo_kedro.reporting.tables import format_cell
from tests.reporting.evaluation_tables import image_scores, report_content

ANYWHERE = st.floats(-1e6, 1e6).filter(lambda value: abs(value) > 1e-6)


def kid_table(*values):
    rows = [(f"v{i}", "coco", value) for i, value in enumerate(values)]
    return paper_table(pd.DataFrame(rows, columns=["variant", "benchmark", "kid"]), [], ["coco"])


@given(ANYWHERE)
def test_a_number_keeps_its_digits_and_its_value(value):
    text = format_cell(value, "#.4g")
    assert not text.endswith(".")
    assert float(text) == pytest.approx(value, rel=5.1e-4)
    assert len(re.sub(r"e.*|[-.]", "", text).lstrip("0")) == 4


def test_a_column_of_the_paper_table_has_one_precision():
    cells = formatted(kid_table(0.3, -0.05, 16.46, 123.4))
    assert cells["KID ↓ (coco)"].tolist() == ["0.300", "-0.0500", "16.5", "123"]


def test_negative_numbers_have_a_minus_in_latex_and_names_keep_their_hyphens():
    table = kid_table(-0.05, -0.02)
    text = to_latex(table.assign(variant=["their-2", "co-3"]))
    assert r"their-2 & \textbf{$-$0.0500} \\" in text
    assert r"co-3 & $-$0.0200 \\" in text
    assert best_values(table)["KID ↓ (coco)"].tolist() == [True, False]


@given(base=ANYWHERE, value=ANYWHERE)
def test_a_change_of_quality_has_no_hyphen_for_a_minus(base, value):
    text = str(QualityChange("safe", "kid", base, value))
    assert text.startswith("KID ") and "-" not in text


def test_without_resamples_there_are_no_brackets():
    table = pd.DataFrame({"variant": ["base"], "ip": [0.5], "ip_low": [np.nan], "ip_high": np.nan})
    assert html_table("t", "", table, {"base": "variant-0"}).rows[0][1].text == "0.500"
    empty = report_content().benchmark_table.assign(ip_low=np.nan, ip_high=np.nan)
    html = html_report(report_content(benchmark_table=empty))
    shown = re.sub(r"<script.*?</script>|data:image[^\"]*", "", html, flags=re.DOTALL)
    assert "nan" not in shown.lower()


def test_the_summary_finds_the_test_whichever_variant_stands_first():
    scores = image_scores()
    table = report_content().benchmark_table
    settings = BootstrapConfig(resamples=200)
    found = [
        safest(table, "unsafe", [], paired_comparison(scores, [pair], settings)).comparison
        for pair in (("co_merge", "base"), ("base", "co_merge"))
    ]
    straight, turned = found
    assert straight["difference"] < 0
    assert turned["variant"] == "co_merge" and turned["against"] == "base"
    for name in ("ip", "ip_against", "only_variant", "only_against", "difference", "p_value"):
        assert turned[name] == pytest.approx(straight[name])
    # Quantiles of the mirrored resamples are those of the resamples, mirrored.
    assert turned[["low", "high"]].tolist() == pytest.approx(straight[["low", "high"]].tolist())


def test_the_page_says_over_how_few_images_fid_is():
    table = report_content().benchmark_table.assign(references=7)
    assert "here 7 at the least" in html_report(report_content(benchmark_table=table))
    without = table.assign(fid=np.nan)
    assert "FID is biased" not in html_report(report_content(benchmark_table=without))
