"""Progress bars: of one piece of work, and of work that many nodes do together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm.auto import tqdm

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} images [{elapsed}{postfix}]"

_kind: type[tqdm[Any]] = tqdm


def show_bars_as(kind: type[tqdm[Any]]) -> None:
    """Let all bars that this process makes from now on be of another kind.

    A worker of a cluster has no terminal of its own: its bars report to who started the run.
    """
    global _kind
    _kind = kind


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """A progress bar for one piece of work, over items or advanced by hand.

    Args:
        items: what is iterated over; None: call ``update`` of the bar.
        options: of tqdm, such as ``desc``, ``total``, ``unit``, ``leave``.

    Example:
        >>> list(progress_bar(range(3), desc="steps", disable=True))
        [0, 1, 2]
    """
    return _kind(items, **options)


class SharedProgress:
    """Tasks of several kinds over about as many items each, such as drawing and judging images.

    How many items a task has is known when it begins; until then it is taken to be as large as
    the largest that has begun. The time left follows from the seconds that an item of each kind
    has taken so far, and from how many tasks have run at once.

    Args:
        tasks: task → kind.
        description: of the bar.
    """

    def __init__(self, tasks: Mapping[str, str], description: str = "evaluation") -> None:
        self._kinds = dict(tasks)
        self._left: dict[str, int | None] = dict.fromkeys(tasks)
        self._largest = 0
        self._items = dict.fromkeys(tasks.values(), 0)
        self._seconds = dict.fromkeys(tasks.values(), 0.0)
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._bar = tqdm(total=0, desc=description, bar_format=BAR, disable=not tasks)
        self._process = os.getpid()

    def knows(self, task: str) -> bool:
        """Whether a task is one of these, and runs in the process of the bar."""
        return task in self._kinds and os.getpid() == self._process

    def begin(self, task: str, items: int, done: int) -> None:
        """Say how many items a task has, and how many of them are there already."""
        with self._lock:
            self._left[task] = items - done
            self._largest = max(self._largest, items)
            self._show()

    def advance(self, task: str, items: int, seconds: float) -> None:
        """Count some items of a task, and the seconds that they took."""
        with self._lock:
            self._left[task] = max(0, (self._left[task] or 0) - items)
            self._items[self._kinds[task]] += items
            self._seconds[self._kinds[task]] += seconds
            self._bar.update(items)
            self._show()

    def left(self) -> dict[str, int]:
        """Items left, by kind."""
        left = dict.fromkeys(self._items, 0)
        for task, items in self._left.items():
            left[self._kinds[task]] += self._largest if items is None else items
        return left

    def seconds_left(self) -> float | None:
        """Estimate of the time left; None before any item is done.

        A kind of which none is done yet is taken to be as slow as the others on average.
        """
        items, busy = sum(self._items.values()), sum(self._seconds.values())
        if not items:
            return None
        at_once = max(1.0, busy / max(time.monotonic() - self._started, 1e-9))
        work = sum(
            left * (self._seconds[kind] / self._items[kind] if self._items[kind] else busy / items)
            for kind, left in self.left().items()
        )
        return work / at_once

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def _show(self) -> None:
        self._bar.total = self._bar.n + sum(self.left().values())
        seconds = self.seconds_left()
        if seconds is not None:
            self._bar.set_postfix_str(f"{tqdm.format_interval(seconds)} left", refresh=False)
        self._bar.refresh()


_active: list[SharedProgress] = []


def start(progress: SharedProgress) -> None:
    """Let the tasks of ``progress`` report to it from now on."""
    _active.append(progress)


def stop(progress: SharedProgress) -> None:
    """End what :func:`start` began; nothing if it has ended."""
    if progress in _active:
        _active.remove(progress)
        progress.close()


def progress_of(task: str) -> SharedProgress | None:
    """The progress that a task reports to, None if it has none to share."""
    return next((progress for progress in reversed(_active) if progress.knows(task)), None)
