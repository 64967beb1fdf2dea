"""A run's bar counts what the run will draw and judge."""

from __future__ import annotations

import pandas as pd
import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.datasets import ShardedParquetDataset
from safetydpo_kedro.hooks import ProgressHooks
from safetydpo_kedro.progress import progress_of


@pytest.mark.parametrize(("only_missing", "tasks"), [(False, {"a", "b"}), (True, {"b"})])
def test_an_incremental_run_counts_only_what_is_not_fresh(tmp_path, only_missing, tasks):
    nodes = [Node(len, "x", f"{v}_images", name=f"{v}.draw_images") for v in "ab"]
    catalog = DataCatalog(
        {f"{v}_images": ShardedParquetDataset(path=str(tmp_path / v)) for v in "ab"}
    )
    catalog["a_images"].save({"one": pd.DataFrame({"x": [1]})})
    hooks = ProgressHooks()
    params = {"only_missing_outputs": only_missing, "runner": "SequentialRunner"}
    hooks.before_pipeline_run(params, Pipeline(nodes), catalog)
    try:
        assert {v for v in "ab" if progress_of(str(tmp_path / v))} == tasks
    finally:
        hooks.after_pipeline_run()
    assert progress_of(str(tmp_path / "b")) is None
