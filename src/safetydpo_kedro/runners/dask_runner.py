"""Runs pipelines on a Dask cluster: nodes side by side, big nodes shared among all workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner
from pluggy import PluginManager

from safetydpo_kedro.runners.checks import refuse_in_memory, refuse_other_disks

if TYPE_CHECKING:
    from distributed import Client

SECONDS_FOR_WORKERS = 120


class DaskRunner(AbstractRunner):
    r"""Let the workers of a Dask cluster run the nodes.

    Nodes that do not depend on each other run at the same time. A node that writes shards is
    computed by all workers, each a share of its shards. Nodes tagged ``gpu`` run only where a
    worker has announced the resource ``GPU``, as many at once as it has announced. Hooks of nodes
    and data sets run on the workers; their logs and progress come back to the log of the run. What
    a lost worker was doing is done again by another, from the last shard or checkpoint on. If a
    node fails, all others are stopped at their next step or shard, and Kedro says how to resume.

    Workers must have this project installed, in the same versions, and see the same artifacts: on
    a shared file system, or on object storage. Nothing may be handed on in memory.

    Example:
        .. code-block:: bash

            kedro run --runner safetydpo_kedro.runners.DaskRunner --runner-params workers=3
            kedro run --runner safetydpo_kedro.runners.DaskRunner \
              --runner-params address=tcp://scheduler:8786

    Args:
        address: of a running scheduler, such as ``tcp://host:8786``. None: a cluster on this
            machine, for this run only.
        workers: processes of the cluster on this machine; None: one for each visible GPU, or for
            each CPU core if there is none.
        is_async: load inputs and save outputs of a node in threads, as of all runners.

    Raises:
        ModuleNotFoundError: ``distributed`` is not installed.
        ValueError: ``workers`` is not a positive number, or given beside an address.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, is_async: bool = False
    ) -> None:
        super().__init__(is_async=is_async)
        try:
            import distributed  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "DaskRunner needs a package that is not installed (distributed): "
                "pip install 'safetydpo_kedro[dask]'"
            ) from error
        if workers is not None and (not isinstance(workers, int) or workers < 1):
            raise ValueError(f"--runner-params workers={workers!r}: must be a positive number")
        if workers is not None and address is not None:
            raise ValueError(
                f"--runner-params address={address},workers={workers}: a running cluster has the "
                f"workers that it has; give one of the two"
            )
        self._address = address
        self._workers = workers
        self._executor: Executor | None = None

    def _get_executor(self, max_workers: int) -> Executor | None:
        return self._executor

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        from safetydpo_kedro.runners.executor import NodeExecutor

        refuse_in_memory(pipeline, catalog)
        if not pipeline.nodes:
            return
        with self._connected() as client:
            refuse_other_disks(client, pipeline, catalog)
            plugins = hook_manager.get_plugins() if hook_manager else ()
            hooks = [plugin for plugin in plugins if getattr(plugin, "on_workers", False)]
            self._executor = NodeExecutor(client, pipeline, hooks)
            super()._run(pipeline, catalog, run_id=run_id)

    @contextmanager
    def _connected(self) -> Iterator[Client]:
        """A client of the cluster, whose workers are ready for this project's nodes."""
        from safetydpo_kedro.runners.clusters import connect, local_cluster, visible_gpus
        from safetydpo_kedro.runners.progress import relayed
        from safetydpo_kedro.runners.workers import WorkerSetup

        # Of its inner life only what goes wrong belongs into the log of a run.
        logging.getLogger("distributed").setLevel(logging.WARNING)
        local = self._address is None
        cluster = local_cluster(self._workers) if local else None
        setup = WorkerSetup.of_this_process(visible_gpus() if local else ())
        try:
            with connect(cluster or self._address, SECONDS_FOR_WORKERS) as client:
                client.register_plugin(setup)  # before logs are relayed: it removes handlers
                with relayed(client):
                    yield client
        finally:
            if cluster is not None:
                # Processes that hold large libraries may end slowly; killing them then is no news.
                logging.getLogger("distributed.nanny").setLevel(logging.ERROR)
                cluster.close()
