"""Hooks of the project: they make Kedro's incremental and threaded runs correct.

Every command imports the hooks, and only runs use them: what they need they import when called.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

logger = logging.getLogger(__name__)


class FreshnessHooks:
    """Let an artifact exist only if it is made from the current parameters and inputs.

    ``kedro run --only-missing-outputs`` then skips what is fresh and redoes what is stale. What
    is expected of each artifact is attached to its data set, so workers of a parallel run know it.
    """

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """State what every artifact should be made from; say what an incremental run will do."""
        from safetydpo_kedro.datasets.freshness import expected_provenances, track
        from safetydpo_kedro.datasets.run_plan import make_run_plan

        expected = expected_provenances(pipeline, catalog)
        for node in pipeline.nodes:
            for name in node.outputs:
                track(catalog.get(name), expected[name.partition("@")[0]])
        if run_params.get("only_missing_outputs"):
            for line in make_run_plan(pipeline, catalog, expected).lines():
                logger.info(line)


class ThreadHooks:
    """Import model libraries before threads do.

    Nodes import them when they need them, so that Kedro starts quickly. Several threads that
    import diffusers or transformers at once see half of their lazy modules, and fail.
    """

    modules = (
        "safetydpo_kedro.diffusion.adapters",
        "safetydpo_kedro.diffusion.loading",
        "safetydpo_kedro.metrics.judging",
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
        "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    )

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Import them if the run has threads and any node is tagged ``gpu``: those need models."""
        threaded = "ThreadRunner" in str(run_params.get("runner"))
        if threaded and any("gpu" in node.tags for node in pipeline.nodes):
            for module in self.modules:
                import_module(module)
