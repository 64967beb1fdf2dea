"""What workers of a cluster do, in a line of the log every few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

TOPIC = "safetydpo_kedro-progress"
SCHEDULER = "all"  # where Dask's scheduler announces what happens to workers
SECONDS = 15.0


class ProgressLog:
    """Adds up the bars of all workers that have the same label.

    Args:
        seconds: at least so long between two lines.

    Example:
        >>> log = ProgressLog()
        >>> report = {"bar": 1, "unit": "shard", "total": 5, "closed": False}
        >>> log.note({**report, "worker": "a", "label": "image_pairs", "done": 2})
        >>> log.note({**report, "worker": "b", "label": "image_pairs", "done": 1})
        >>> log.note({**report, "worker": "c", "label": "hate", "done": 3, "unit": "step"})
        >>> log.line()
        'image_pairs 3/10 shard, hate 3/5 step'
        >>> log.note({**report, "worker": "c", "label": "hate", "done": 5, "closed": True})
        >>> log.line()
        'image_pairs 3/10 shard'
        >>> log.forget("b")
        >>> log.line()
        'image_pairs 2/5 shard'
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._bars: dict[str, dict[tuple[str, int], dict[str, Any]]] = {}
        self._seconds = seconds
        self._shown = time.monotonic()

    def note(self, report: Mapping[str, Any]) -> None:
        """Take a report of a bar: ``worker, bar, label, unit, done, total, closed``."""
        bars = self._bars.setdefault(report["label"], {})
        bars[report["worker"], report["bar"]] = dict(report)
        self._leave_out_the_ended()
        if time.monotonic() - self._shown >= self._seconds and (line := self.line()):
            self._shown = time.monotonic()
            logger.info("workers: %s", line)

    def forget(self, worker: str) -> None:
        """Leave out the bars of a worker that is lost; another does its work again."""
        for label, bars in self._bars.items():
            self._bars[label] = {key: bar for key, bar in bars.items() if key[0] != worker}
        self._leave_out_the_ended()

    def line(self) -> str:
        """How far everything is that has begun and not ended."""
        return ", ".join(
            f"{label} {sum(bar['done'] for bar in bars.values())}/"
            f"{sum(bar['total'] or 0 for bar in bars.values())} {next(iter(bars.values()))['unit']}"
            for label, bars in self._bars.items()
        )

    def _leave_out_the_ended(self) -> None:
        self._bars = {
            label: bars
            for label, bars in self._bars.items()
            if not all(bar["closed"] for bar in bars.values())
        }


@contextmanager
def relayed(client: Client) -> Iterator[None]:
    """Log here what the workers log, and how far they are."""
    log = ProgressLog()
    client.subscribe_topic(TOPIC, lambda event: log.note(event[1]))
    client.subscribe_topic(SCHEDULER, lambda event: _note_lost(log, event[1]))
    client.forward_logging()
    try:
        yield
    finally:
        if client.status == "running":  # else there is no scheduler any more to be told
            client.unforward_logging()
            client.unsubscribe_topic(TOPIC)
            client.unsubscribe_topic(SCHEDULER)


def _note_lost(log: ProgressLog, event: Mapping[str, Any]) -> None:
    if event.get("action") != "remove-worker":
        return
    log.forget(event["worker"])
    if event["processing-tasks"]:
        logger.warning("worker %s is lost; others do again what it did", event["worker"])
