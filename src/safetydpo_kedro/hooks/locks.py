"""A hook that keeps two runs from writing, or reading and writing, the same artifacts."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, CatalogProtocol
from kedro.pipeline import Pipeline

from safetydpo_kedro.locks import Lock, LocksNotSupportedError, allow_open_files, lock_file

logger = logging.getLogger(__name__)

OTHER_FILES = 256  # that a run has open beside its locks


class LockHooks:
    """Lock what a run writes, and what it reads and another run may be writing.

    Before anything looks at an artifact, every output of the run's nodes is locked exclusively,
    and every input that runs make is locked shared. So runs of different namespaces go on side by
    side, and a run that would disturb another one refuses at once. Once locked, what killed runs
    have left beside outputs is removed. Locks go with the process. Artifacts on remote storage
    have none.
    """

    def __init__(self) -> None:
        self._locks: list[Lock] = []

    @hook_impl(wrapper=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> Generator[None, Any, Any]:
        """Take the locks before other hooks are called.

        Raises:
            LockedError: another run works on one of the artifacts.
            OSError: the folder of an output that has to be made cannot be written to.
        """
        self._release()  # those of a run in this process that was interrupted
        try:
            refused = self._take(wanted_locks(pipeline, catalog))
            result = yield
            # By now every data set knows what it should be made from.
            incremental = run_params.get("only_missing_outputs")
            for name in sorted(pipeline.all_outputs()):
                error = refused.get(_local_path(catalog.get(name)))
                if error and not (incremental and catalog.exists(name)):
                    raise error
        except BaseException:
            self._release()
            raise
        return result

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Release the locks."""
        self._release()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """Release the locks."""
        self._release()

    def _take(self, wanted: Mapping[Path | None, bool]) -> dict[Path | None, OSError]:
        """Lock artifacts, in an order that is the same for all; errors of those that cannot be."""
        from safetydpo_kedro.leftovers import remove_leftovers
        from safetydpo_kedro.write_errors import CannotWriteError, explained

        refused: dict[Path | None, OSError] = {}
        allow_open_files(len(wanted) + OTHER_FILES)
        for path, exclusive in sorted(wanted.items()):
            try:
                with explained(path):
                    self._locks.append(Lock(path, exclusive))
            except LocksNotSupportedError as error:
                logger.warning(
                    "The file system of %s has no locks (%s): see to it yourself that no two runs "
                    "work on the same artifacts",
                    path.parent,
                    error.strerror,
                )
                return refused
            except CannotWriteError as error:
                refused[path] = error  # an input that nobody can write, or an output that is fresh
                continue
            if exclusive and (removed := remove_leftovers(path)):
                logger.info("%s: %d leftovers of a killed run removed", path.name, len(removed))
        return refused

    def _release(self) -> None:
        while self._locks:
            self._locks.pop().release()


def wanted_locks(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[Path, bool]:
    """Local artifacts of a run → whether it writes them.

    Inputs that no run has made, and none is making, are left out.
    """
    from safetydpo_kedro.datasets.freshness import is_parameter, manifest_path

    wanted: dict[Path, bool] = {}
    for name in pipeline.inputs():
        dataset = None if is_parameter(name) else catalog.get(name)
        path = _local_path(dataset)
        if path and (manifest_path(dataset).is_file() or lock_file(path).exists()):
            wanted[path] = False
    for name in pipeline.all_outputs():
        if path := _local_path(catalog.get(name)):
            wanted[path] = True
    return wanted


def _local_path(dataset: AbstractDataset | None) -> Path | None:
    from safetydpo_kedro.datasets.freshness import artifact_path, manifest_path

    path = artifact_path(dataset)
    if path is None and hasattr(dataset, "expect"):  # a folder with its manifest inside
        path = manifest_path(dataset).parent
    return path.absolute() if isinstance(path, Path) else None
