"""A hook that shows one progress bar over everything that an evaluation draws and judges."""

from __future__ import annotations

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from safetydpo_kedro.progress import SharedProgress, start, stop

DRAWING, JUDGING = "drawing", "judging"
ELSEWHERE = ("ParallelRunner", "DaskRunner")
KINDS = {"draw_images": DRAWING, "judge_images": JUDGING}


class ProgressHooks:
    """Find the nodes of a run that draw and judge variants, and give them one bar."""

    def __init__(self) -> None:
        self._progress: SharedProgress | None = None

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """List the tasks; an incremental run has only those that are not fresh."""
        kinds = {node.name: KINDS.get(node.name.rpartition(".")[2]) for node in pipeline.nodes}
        # Workers in other processes have bars of their own.
        elsewhere = any(name in str(run_params.get("runner")) for name in ELSEWHERE)
        if elsewhere or list(kinds.values()).count(DRAWING) < 2:
            return
        # By now every data set knows what it should be made from.
        only_missing = run_params.get("only_missing_outputs")
        tasks = {}
        for node in pipeline.nodes:
            for output in node.outputs if kinds[node.name] else ():
                dataset = catalog.get(output)
                path = getattr(dataset, "manifest_path", None)
                if path is not None and not (only_missing and dataset.exists()):
                    tasks[str(path.parent)] = kinds[node.name]
        if tasks:
            self._progress = SharedProgress(tasks)
            start(self._progress)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Close the bar."""
        self._close()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            stop(self._progress)
            self._progress = None
