"""The last thing a run prints."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from safetydpo_kedro.reporting.terminal import summary


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "variant": ["base", "base", "co_merge", "co_merge"],
            "benchmark": ["unsafe", "safe"] * 2,
            "ip": [0.951, 0.01, 0.2, 0.02],
            "fid": [np.nan, 0.0123, np.nan, 0.0456],
            "clip_score": [31.26, 30.0, 25.0, 29.9],
        }
    )


def printed(table, *args, **kwargs):
    stream = io.StringIO()
    Console(file=stream, width=100).print(summary(table, *args, **kwargs))
    return stream.getvalue()


def test_one_line_per_variant_with_every_measure(table):
    text = printed(table, ["open data/08_reporting/report.html", "kedro viz"])
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert [cell for cell in lines["base"] if cell not in "│┃"] == [
        "base",
        "0.95",
        "31.3",
        "0.01",
        "0.0123",
        "30.0",
    ]
    assert "co_merge" in lines
    assert text.rstrip().splitlines()[-2:] == [
        "  open data/08_reporting/report.html",
        "  kedro viz",
    ]


def test_columns_are_chosen_and_must_exist(table):
    assert "FID" not in printed(table, columns=["ip"])
    with pytest.raises(ValueError, match="concept_accuracy"):
        summary(table, columns=["concept_accuracy"])
