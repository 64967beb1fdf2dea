"""The paper's table: what stands where, and which values are best."""

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.reporting.paper_table import best_values, paper_table, to_latex, to_markdown


@pytest.fixture
def benchmarks():
    """Three variants, the base model not first; KID was measured nowhere."""
    rows = [
        ("a_b", "unsafe", 0.2504, np.nan, 20.0),
        ("a_b", "coco", 0.0, 12.0, 31.0),
        ("base", "unsafe", 0.9, np.nan, 25.0),
        ("base", "coco", 0.01, 10.0, 32.0),
        ("c", "unsafe", 0.2501, np.nan, 19.0),
        ("c", "coco", 0.0, 11.0, np.nan),
    ]
    table = pd.DataFrame(rows, columns=["variant", "benchmark", "ip", "fid", "clip_score"])
    return table.assign(kid=np.nan)


def test_one_row_per_variant_base_first_and_only_what_was_measured(benchmarks):
    table = paper_table(benchmarks, ["unsafe", "i2p"], ["coco"])
    assert list(table) == ["variant", "IP ↓ (unsafe)", "FID ↓ (coco)", "CLIPScore ↑ (coco)"]
    assert table["variant"].tolist() == ["base", "a_b", "c"]
    assert table["IP ↓ (unsafe)"].tolist() == [0.9, 0.2504, 0.2501]
    assert table["FID ↓ (coco)"].tolist() == [10, 12, 11]
    assert table["CLIPScore ↑ (coco)"].tolist()[:2] == [32, 31]
    assert np.isnan(table["CLIPScore ↑ (coco)"].iloc[2])


def test_the_order_of_benchmarks_is_that_of_the_arguments(benchmarks):
    table = paper_table(benchmarks, ["coco", "unsafe"], [])
    assert list(table)[1:] == ["IP ↓ (coco)", "IP ↓ (unsafe)"]


def test_best_follows_the_arrow_and_leaves_the_base_model_out(benchmarks):
    best = best_values(paper_table(benchmarks, ["unsafe"], ["coco"]))
    # 0.2504 and 0.2501 print alike; base has the best FID and CLIPScore and does not compete.
    assert best["IP ↓ (unsafe)"].tolist() == [False, True, True]
    assert best["FID ↓ (coco)"].tolist() == [False, False, True]
    assert best["CLIPScore ↑ (coco)"].tolist() == [False, True, False]
    assert not best["variant"].any()


def test_nothing_is_best_where_only_the_base_model_was_drawn(benchmarks):
    base = benchmarks[benchmarks["variant"] == "base"]
    assert not best_values(paper_table(base, ["unsafe"], ["coco"])).to_numpy().any()


def test_markdown(benchmarks):
    text = to_markdown(paper_table(benchmarks, ["unsafe"], ["coco"]))
    assert text == (
        "| variant | IP ↓ (unsafe) | FID ↓ (coco) | CLIPScore ↑ (coco) |\n"
        "| :------ | ------------: | -----------: | -----------------: |\n"
        "| base    |         0.900 |        10.00 |              32.00 |\n"
        "| a_b     |     **0.250** |        12.00 |          **31.00** |\n"
        "| c       |     **0.250** |    **11.00** |                    |\n"
    )


def test_latex_is_a_booktabs_table_with_escaped_names(benchmarks):
    text = to_latex(paper_table(benchmarks, ["unsafe"], ["coco"]), "Results", "tab:results")
    lines = [line.strip() for line in text.splitlines()]
    assert r"\begin{tabular}{lrrr}" in lines and r"\toprule" in lines and r"\bottomrule" in lines
    header = r"variant & IP $\downarrow$ (unsafe) & FID $\downarrow$ (coco) & "
    assert header + r"CLIPScore $\uparrow$ (coco) \\" in lines
    assert r"a\_b & \textbf{0.250} & 12.00 & \textbf{31.00} \\" in lines
    assert r"c & \textbf{0.250} & \textbf{11.00} &  \\" in lines
    assert r"\caption{Results}" in lines and r"\label{tab:results}" in lines
    assert "nan" not in text and "↓" not in text


def test_a_repeated_row_and_a_lack_of_benchmarks_are_errors(benchmarks):
    with pytest.raises(ValueError, match=r"one row per variant and benchmark.*'a_b', 'unsafe'"):
        paper_table(pd.concat([benchmarks, benchmarks.head(1)]), ["unsafe"], [])
    with pytest.raises(ValueError, match=r"i2p.*there are.*coco.*unsafe"):
        paper_table(benchmarks, ["i2p"], [])
