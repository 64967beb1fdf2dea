"""Timing of several ways to do one thing: in turns, so that a busy machine slows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple, TypeVar

import torch

Result = TypeVar("Result")


class Timed(NamedTuple):
    """What something computed, and the seconds that it took."""

    seconds: float
    result: object


def now() -> float:
    """Seconds, once the device is idle."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(compute: Callable[[], object]) -> Timed:
    """Compute something, and time it."""
    started = now()
    result = compute()
    return Timed(now() - started, result)


def in_turns(ways: Mapping[str, Callable[[int], Result]], rounds: int) -> dict[str, list[Result]]:
    """Each way once in every round, after a round that warms up.

    Args:
        ways: by name; each takes the number of the round.
        rounds: that count.

    Returns:
        Results of each way, one per round.
    """
    results = [{name: way(number) for name, way in ways.items()} for number in range(1 + rounds)]
    return {name: [result[name] for result in results[1:]] for name in ways}


def speedup(seconds: Sequence[float], other: Sequence[float]) -> float:
    """How many times faster than ``other``: the median over rounds of the rounds' own ratios."""
    return median(b / a for a, b in zip(seconds, other, strict=True))
