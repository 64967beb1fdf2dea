"""A hook that makes Kedro's threaded runs correct."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline

MODULES = (
    "safetydpo_kedro.diffusion.adapters",
    "safetydpo_kedro.diffusion.loading",
    "safetydpo_kedro.metrics.judging",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
)


def import_for_threads() -> None:
    """Import model libraries before threads do.

    Nodes import them when they need them, so that Kedro starts quickly. Several threads that
    import diffusers or transformers at once see half of their lazy modules, and fail.
    """
    for module in MODULES:
        import_module(module)


class ThreadHooks:
    """Import model libraries before a run with threads."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Import them if the run has threads and any node is tagged ``gpu``: those need models."""
        threaded = "ThreadRunner" in str(run_params.get("runner"))
        if threaded and any("gpu" in node.tags for node in pipeline.nodes):
            import_for_threads()
