"""Models are built by one thread at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from kedro.pipeline import Node, Pipeline
from kedro.runner import ThreadRunner

from safetydpo_kedro import hooks
from safetydpo_kedro.hooks import ThreadHooks
from safetydpo_kedro.threads import builds_models


def test_decorated_functions_never_run_together_but_may_call_each_other():
    inside, most = [0], [0]

    @builds_models
    def part():
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return threading.get_ident()

    @builds_models
    def whole():
        return part()

    with ThreadPoolExecutor(4) as pool:
        threads = {future.result() for future in [pool.submit(f) for f in (part, whole) * 4]}
    assert most[0] == 1 and len(threads) > 1


def test_model_libraries_are_imported_before_threads_start(monkeypatch):
    imported = []
    monkeypatch.setattr(hooks, "import_module", imported.append)
    plain = Pipeline([Node(len, "a", "b", name="plain")])
    heavy = Pipeline([Node(len, "a", "b", name="heavy", tags=["gpu"])])
    for runner, pipeline in (("SequentialRunner", heavy), ("ThreadRunner", plain)):
        ThreadHooks().before_pipeline_run({"runner": runner}, pipeline)
    assert imported == []
    given = str(ThreadRunner())  # what Kedro hands on if it was given a runner, not its name
    ThreadHooks().before_pipeline_run({"runner": given}, heavy)
    assert imported == list(ThreadHooks.modules)
