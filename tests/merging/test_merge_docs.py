"""The example in the documentation is a strategy, and the table names them all."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from safetydpo_kedro.merging import available_strategies, merge, registry

from .small_experts import SHAPES, dense

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "how_to" / "add_a_merge_strategy.md").read_text(encoding="utf-8")
PAGE = (DOCS / "explanation" / "merging.md").read_text(encoding="utf-8")


def test_the_example_is_a_strategy(experts):
    section = GUIDE.split("## 1. Write it")[1]
    source = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    try:
        exec(compile(source, "strongest.py", "exec"), {"__name__": "strongest"})
        merged, error = merge("strongest", experts, {"strength": 0.5})
    finally:
        registry._STRATEGIES.pop("strongest", None)
    for layer in SHAPES:
        largest = max((dense(a, layer) for a in experts.values()), key=torch.linalg.norm)
        torch.testing.assert_close(dense(merged, layer), 0.5 * largest)
        assert error[layer] == 0


def test_the_table_names_every_strategy():
    table = PAGE.split("## Strategies")[1].split("\n- ")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert named == set(available_strategies())
