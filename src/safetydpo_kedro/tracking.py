"""Curves in MLflow while a training runs, for runs that are recorded there.

Nothing here imports MLflow unless Kedro has already started to record the run with it.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from safetydpo_kedro.trust import without_secrets

if TYPE_CHECKING:
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

INTERVAL = 5.0  # seconds between two writes
SHARE = 0.01  # of the time of a training, at most, that may go into writing
BATCH = 1000  # values in one write; MLflow takes no more


class MetricBuffer:
    """Collects values and writes them to MLflow in batches.

    It writes every :data:`INTERVAL` seconds, and more rarely where the store is slow. A store
    that fails does not end a training: the values wait for the next write.

    Args:
        run_id: of the MLflow run.
    """

    def __init__(self, run_id: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._run_id = run_id
        self._waiting: list[Metric] = []
        self._due = -math.inf

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take values of one step; write what has been collected if it is time to.

        Args:
            step: number of the step.
            metrics: name → value; infinite ones and NaN are left out.
        """
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for name, value in metrics.items():
            if math.isfinite(value):
                self._waiting.append(Metric(name, float(value), now, step))
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write all that has been collected."""
        from mlflow.exceptions import MlflowException

        started = time.monotonic()
        try:
            while self._waiting:
                batch = self._waiting[:BATCH]
                self._client.log_batch(self._run_id, metrics=batch, synchronous=True)
                del self._waiting[:BATCH]
        except MlflowException as error:
            # As text: an error in a log record keeps alive the frames that it came through.
            logger.warning(
                "MLflow did not take %d values, the run goes on: %s",
                len(self._waiting),
                without_secrets(str(error)),
            )
        ended = time.monotonic()
        self._due = ended + max(INTERVAL, (ended - started) / SHARE)


def step_logger(name: str) -> Callable[[int, Mapping[str, float]], None] | None:
    """What a training calls after each step, to have its curves in MLflow while it runs.

    The last values are written when the function is let go of: when the training ends, fails, or
    the process exits. Nothing has to be closed.

    Args:
        name: of the curves; ``hate`` makes ``hate/loss`` of the metric ``loss``.

    Returns:
        A function of the step and its metrics, or None if this run is not recorded in MLflow.
    """
    mlflow = sys.modules.get("mlflow")
    run = mlflow.active_run() if mlflow else None
    if run is None:
        return None
    buffer = MetricBuffer(run.info.run_id)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        buffer.add(step, {f"{name}/{metric}": value for metric, value in metrics.items()})

    weakref.finalize(log, buffer.flush)
    return log


def quiet_start() -> None:
    """Silence what MLflow says about a class of kedro-mlflow as soon as that is imported.

    Kedro's command line imports every plugin that is installed, and calls this first (the entry
    point ``kedro.init``). MLflow overrides filters of ``warnings``; but Kedro logs warnings.
    """
    logging.getLogger("py.warnings").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    return "Add type hints to the `predict` method" not in record.getMessage()
