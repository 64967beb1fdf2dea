"""Registry of the project's pipelines."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from kedro.framework.project import find_pipelines
from kedro.pipeline import Pipeline
from kedro.pipeline.preview_contract import TextPreview
from kedro.utils import KedroExperimentalWarning

DEFAULT_PIPELINES = ("dataset_generation", "expert_training", "merging", "evaluation")


def register_pipelines() -> dict[str, Pipeline]:
    """Find the pipelines; the default one is the whole job, without pretraining.

    Under ``kedro run --pipelines A,B`` Kedro lets ``find_pipelines`` import only those named, so
    the default may lack some here; nothing asks for it then.
    """
    found = find_pipelines(raise_errors=True)
    pipelines = {name: with_descriptions(pipeline) for name, pipeline in found.items()}
    parts = (pipelines[name] for name in DEFAULT_PIPELINES if name in pipelines)
    pipelines["__default__"] = sum(parts, Pipeline([]))
    return pipelines


def with_descriptions(pipeline: Pipeline) -> Pipeline:
    """The same nodes; Kedro-Viz shows of each what the docstring of its function says."""
    with warnings.catch_warnings():
        # Kedro calls previews of nodes experimental, once in every process.
        warnings.simplefilter("ignore", KedroExperimentalWarning)
        return Pipeline(
            [node._copy(preview_fn=partial(describe, node.func)) for node in pipeline.nodes]
        )


def describe(function: Callable[..., Any]) -> TextPreview:
    """The docstring of a node's function."""
    return TextPreview(inspect.getdoc(function) or "")
