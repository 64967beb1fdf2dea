"""How long an import takes, against pandas row by row: ``python -m benchmarks.import_prompts``.

The alternative is the usual script: ``pandas.read_csv``, then ``iterrows`` into a dictionary of
pairs. It checks nothing and sets nothing aside. Medians of processor time over some rounds, taken
in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks.released_files import PAIRS, write_train_csv
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.coprov2 import import_pairs
from safetydpo_kedro.prompts.importers.pairs import import_table
from safetydpo_kedro.prompts.importers.schema import Intake
from safetydpo_kedro.settings import CATEGORIES

ROUNDS = 5


def ours(path: Path) -> int:
    categories = Categories(CATEGORIES, {"Harrasment": "harassment"})
    return len(import_table(import_pairs(path, categories, 0, Intake("coprov2_train"))))


def pandas_row_by_row(path: Path) -> int:
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    for _, row in pd.read_csv(path).iterrows():
        side, index = row["image"].split("_", 1)
        pairs.setdefault((row["category"], index), {})[side] = row["prompt"]
    return len(pd.DataFrame([pair for pair in pairs.values() if len(pair) == 2]))


def seconds(function: Callable[[Path], int], path: Path) -> float:
    start = time.process_time()
    if function(path) != PAIRS:
        raise RuntimeError(f"{function.__name__} found another number of pairs than {PAIRS}")
    return time.process_time() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        write_train_csv(path)
        times = [(seconds(ours, path), seconds(pandas_row_by_row, path)) for _ in range(ROUNDS)]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{PAIRS} pairs: import {mine:.2f} s, pandas row by row {other:.2f} s")
    print(f"import / pandas row by row: {mine / other:.2f}")


if __name__ == "__main__":
    main()
