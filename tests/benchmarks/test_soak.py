"""What the soak changes between runs, and what it reports."""

from __future__ import annotations

import pandas as pd

from benchmarks.soak import other_seeds, report


def test_only_seeds_are_moved():
    parameters = {"seed": 1, "steps": 4, "lora": {"rank": 8}, "kid": {"seed": 41, "size": [1]}}
    assert other_seeds(parameters, 3000) == {"seed": 3001, "kid": {"seed": 3041}}
    assert other_seeds({"lora": {"rank": 8}}, 3000) == {}


def test_the_report_has_memory_by_run_and_the_spread_of_every_figure(capsys):
    rows = [
        {"run": 0, "seconds": 100.0, "memory": 900.0, "IP of base": 0.9},
        {"run": 1, "seconds": 110.0, "memory": 905.0, "IP of base": 0.8},
        {"run": 2, "seconds": 120.0, "memory": 903.0, "IP of base": 0.95},
    ]
    report(pd.DataFrame(rows))
    printed = capsys.readouterr().out
    assert "| 1 | 110 | 905 |" in printed
    assert "| IP of base | 0.8 | 0.9 | 0.95 |" in printed
