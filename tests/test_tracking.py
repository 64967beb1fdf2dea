"""Curves on their way to MLflow: written in batches, and never the end of a training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from safetydpo_kedro import tracking


def test_there_is_no_step_logger_without_a_run():
    assert tracking.step_logger("hate") is None


class Store:
    """Remembers what it is given; ``down`` makes it fail."""

    def __init__(self) -> None:
        self.batches: list[list] = []
        self.down = False

    def log_batch(self, run_id, metrics, synchronous):
        from mlflow.exceptions import MlflowException

        if self.down:
            raise MlflowException("database is locked")
        self.batches.append([(m.key, m.step) for m in metrics])


@pytest.fixture
def store(monkeypatch) -> Store:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    store = Store()
    monkeypatch.setattr(mlflow, "MlflowClient", lambda: store)
    monkeypatch.setattr(
        mlflow, "active_run", lambda: SimpleNamespace(info=SimpleNamespace(run_id="1"))
    )
    return store


def test_values_are_written_in_batches_and_the_last_ones_at_the_end(store):
    log = tracking.step_logger("hate")
    for step in range(1500):
        log(step, {"loss": 1.0})
    assert store.batches == [[("hate/loss", 0)]]
    del log
    assert [len(batch) for batch in store.batches] == [1, 1000, 499]


def test_a_store_that_fails_does_not_end_the_training(store, caplog):
    store.down = True
    log = tracking.step_logger("hate")
    log(0, {"loss": 1.0})
    assert "database is locked" in caplog.text
    store.down = False
    log(1, {"loss": 1.0})
    del log
    assert store.batches == [[("hate/loss", 0), ("hate/loss", 1)]]
