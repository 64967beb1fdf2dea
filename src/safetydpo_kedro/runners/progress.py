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
SECONDS = 15.0


class ProgressLog:
    """Adds up the bars of all workers that have the same label.

    Args:
        seconds: at least so long between two lines.

    Example:
        >>> log = ProgressLog()
        >>> report = {"unit": "shard", "total": 5, "closed": False}
        >>> log.note({**report, "bar": "a", "label": "image_pairs", "done": 2})
        >>> log.note({**report, "bar": "b", "label": "image_pairs", "done": 1})
        >>> log.note({**report, "bar": "c", "label": "hate", "done": 40, "unit": "step"})
        >>> log.line()
        'image_pairs 3/10 shard, hate 40/5 step'
        >>> log.note({**report, "bar": "c", "label": "hate", "done": 5, "closed": True})
        >>> log.line()
        'image_pairs 3/10 shard'
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._bars: dict[str, dict[str, dict[str, Any]]] = {}
        self._seconds = seconds
        self._shown = time.monotonic()

    def note(self, report: Mapping[str, Any]) -> None:
        """Take a report of a bar: ``bar, label, unit, done, total, closed``."""
        bars = self._bars.setdefault(report["label"], {})
        bars[report["bar"]] = dict(report)
        if all(bar["closed"] for bar in bars.values()):
            del self._bars[report["label"]]
        if time.monotonic() - self._shown >= self._seconds and (line := self.line()):
            self._shown = time.monotonic()
            logger.info("workers: %s", line)

    def line(self) -> str:
        """How far everything is that has begun and not ended."""
        return ", ".join(
            f"{label} {sum(bar['done'] for bar in bars.values())}/"
            f"{sum(bar['total'] or 0 for bar in bars.values())} {next(iter(bars.values()))['unit']}"
            for label, bars in self._bars.items()
        )


@contextmanager
def relayed(client: Client) -> Iterator[None]:
    """Log here what the workers log, and how far they are."""
    log = ProgressLog()
    client.subscribe_topic(TOPIC, lambda event: log.note(event[1]))
    client.forward_logging()
    try:
        yield
    finally:
        if client.status == "running":  # else there is no scheduler any more to be told
            client.unforward_logging()
            client.unsubscribe_topic(TOPIC)
