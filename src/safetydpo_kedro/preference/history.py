"""The table of what happened in every optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import pandas as pd
import torch
from torch import Tensor

from safetydpo_kedro.preference.objective import LOSS_METRICS

METRICS = (
    *LOSS_METRICS,
    "gradient_norm",
    "learning_rate",
    "samples_per_second",
    "skipped",
    "held_out_accuracy",
    "held_out_loss",
)


class HistoryState(TypedDict):
    """A :class:`History` in a checkpoint."""

    values: Tensor
    done: int


class History:
    """Metrics of every step so far; NaN where a step has none.

    Args:
        steps: of the whole run.
    """

    def __init__(self, steps: int) -> None:
        self.values = torch.full((steps, len(METRICS)), torch.nan, dtype=torch.float64)
        self.done = 0

    def add(self, metrics: Mapping[str, float]) -> None:
        """Append a step."""
        for name, value in metrics.items():
            self.values[self.done, METRICS.index(name)] = value
        self.done += 1

    @property
    def skipped(self) -> int:
        """Number of steps without an update."""
        return int(self.values[: self.done, METRICS.index("skipped")].sum())

    def table(self) -> pd.DataFrame:
        """One row per step done: ``step``, from 1, and :data:`METRICS`."""
        table = pd.DataFrame(self.values[: self.done].numpy(), columns=list(METRICS))
        table.insert(0, "step", range(1, self.done + 1))
        return table

    def state_dict(self) -> HistoryState:
        """For a checkpoint."""
        return {"values": self.values, "done": self.done}

    def load_state_dict(self, state: HistoryState) -> None:
        """From a checkpoint."""
        self.values, self.done = state["values"], state["done"]
