"""The last thing a run prints, where nobody watches it."""

from __future__ import annotations

import pandas as pd
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.hooks import SummaryHooks

BENCHMARKS = ("unsafe", "safe", "neutral", "i2p", "coco")


def test_output_in_a_file_is_plain_and_wide_enough(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    table = pd.DataFrame(
        [("fitted_co_merge", name, 0.25, 123.4, 31.26) for name in BENCHMARKS],
        columns=["variant", "benchmark", "ip", "fid", "clip_score"],
    )
    catalog = DataCatalog({"benchmark_table": MemoryDataset(table)})
    pipeline = Pipeline([Node(len, "scores", "benchmark_table", name="tabulate")])
    SummaryHooks().after_pipeline_run(pipeline, catalog)
    printed = capsys.readouterr().out
    assert "\x1b[" not in printed
    (row,) = [line for line in printed.splitlines() if "fitted_co_merge" in line]
    assert [row.count(text) for text in ("0.25", "123", "31.3")] == [len(BENCHMARKS)] * 3
