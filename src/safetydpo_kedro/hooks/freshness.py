"""A hook that makes Kedro's incremental runs correct."""

from __future__ import annotations

import logging
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
        """State what every artifact should be made from; say what an incremental run will do.

        Raises:
            ValueError: artifacts should lie on storage that cannot be reached.
        """
        from safetydpo_kedro.datasets.freshness import (
            expected_provenances,
            make_picklable,
            manifest_path,
            track,
        )
        from safetydpo_kedro.datasets.run_plan import make_run_plan
        from safetydpo_kedro.storage import check_access

        check_access(manifest_path(catalog.get(name)) for name in pipeline.all_outputs())
        for name in pipeline.datasets():
            make_picklable(catalog.get(name))
        expected = expected_provenances(pipeline, catalog)
        for node in pipeline.nodes:
            for name in node.outputs:
                track(catalog.get(name), expected[name.partition("@")[0]])
        if run_params.get("only_missing_outputs"):
            for line in make_run_plan(pipeline, catalog, expected).lines():
                logger.info(line)
