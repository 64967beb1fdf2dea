"""Threads find the model libraries imported."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline
from kedro.runner import ThreadRunner

from safetydpo_kedro.hooks import ThreadHooks, threads


def test_model_libraries_are_imported_before_threads_start(monkeypatch):
    imported = []
    monkeypatch.setattr(threads, "import_module", imported.append)
    plain = Pipeline([Node(len, "a", "b", name="plain")])
    heavy = Pipeline([Node(len, "a", "b", name="heavy", tags=["gpu"])])
    for runner, pipeline in (("SequentialRunner", heavy), ("ThreadRunner", plain)):
        ThreadHooks().before_pipeline_run({"runner": runner}, pipeline)
    assert imported == []
    given = str(ThreadRunner())  # what Kedro hands on if it was given a runner, not its name
    ThreadHooks().before_pipeline_run({"runner": given}, heavy)
    assert imported == list(threads.MODULES)
