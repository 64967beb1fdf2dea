"""Registry of the project's pipelines."""

from __future__ import annotations

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline

DEFAULT_PIPELINES = ("dataset_generation", "expert_training", "merging", "evaluation")


def register_pipelines() -> dict[str, Pipeline]:
    """Find the pipelines; the default one is the whole job, without pretraining.

    Under ``kedro run --pipelines A,B`` Kedro lets ``find_pipelines`` import only those named, so
    the default may lack some here; nothing asks for it then.
    """
    pipelines = find_pipelines(raise_errors=True)
    parts = (pipelines[name] for name in DEFAULT_PIPELINES if name in pipelines)
    pipelines["__default__"] = sum(parts, Pipeline([]))
    return pipelines
