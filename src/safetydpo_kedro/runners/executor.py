"""Hands Kedro's nodes to a Dask cluster, and shares out those that write shards."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner.task import Task

from safetydpo_kedro.datasets.sharded import ShardedDataset
from safetydpo_kedro.runners.checks import GPU_RESOURCE, resources_of, slots, workers_of
from safetydpo_kedro.runners.workers import run_node

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)


class NodeExecutor(ThreadPoolExecutor):
    """An executor of Kedro's tasks. Each has a thread here that waits for what workers do for it.

    Args:
        client: of a cluster whose workers are set up.
        pipeline: whose nodes will come.
        hooks: more hooks for the workers than those of the settings.
    """

    def __init__(self, client: Client, pipeline: Pipeline, hooks: Sequence[Any] = ()) -> None:
        super().__init__(max_workers=len(pipeline.nodes), thread_name_prefix="node")
        self._client = client
        self._hooks = hooks
        self._running: set[Any] = set()
        self._below = longest_paths(pipeline)

    def submit(self, task: Task, /, *args: Any, **kwargs: Any) -> Future[Node]:  # type: ignore[override]
        """Run a node on the cluster; the future holds the node once its outputs are saved."""
        return super().submit(self._run_or_explain, task)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop what is still running, at its next step or shard: a node has failed, or all ended.

        What is stopped goes on from there in the next run.
        """
        if self._running and self._client.status == "running":
            logger.warning("stopping what other workers do; it goes on there in the next run")
            self._client.cancel(list(self._running), force=True)
        super().shutdown(wait=wait, cancel_futures=True)

    def _run_or_explain(self, task: Task) -> Node:
        """Run a node.

        Raises:
            ConnectionError: the scheduler is gone.
        """
        try:
            return self._run(task)
        except (CancelledError, OSError) as error:
            if self._client.status == "running":
                raise
            raise ConnectionError(
                f"the Dask scheduler at {self._client.scheduler.address} is gone, and what its "
                f"workers did with it: start a cluster again, and give the same command with "
                f"--only-missing-outputs; finished shards and checkpoints are there"
            ) from error

    def _run(self, task: Task) -> Node:
        node = task.node
        names = {*node.inputs, *node.outputs}
        datasets = {name: task.catalog.get(name) for name in names}
        output = datasets[node.outputs[0]] if len(node.outputs) == 1 else None
        count = self._places(node)
        if isinstance(output, ShardedDataset) and count > 1:
            shares = [output.share(number, count) for number in range(count)]
            self._wait_for(task, [datasets | {node.outputs[0]: share} for share in shares], "share")
            if output.exists():
                return node
        self._wait_for(task, [datasets], "whole")
        return node

    def _places(self, node: Node) -> int:
        """How many nodes with the needs of this one the workers can run at once.

        Each node that can be shared is shared among so many: those beside it take turns with it,
        and all end sooner than if each had a few workers of its own and some waited at the end.

        Raises:
            RuntimeError: there are workers, and none has what the node needs.
        """
        needed = resources_of(node.tags)
        workers = workers_of(self._client)
        places = slots(workers, needed)
        # If all workers are lost for a moment, others come.
        if workers and not places:
            raise RuntimeError(
                f"node {node.name} is tagged gpu, and no worker announces the resource "
                f"{GPU_RESOURCE}: start workers with `dask worker ADDRESS --resources "
                f"{GPU_RESOURCE}=1 --nthreads 1`, on a machine without a GPU, too, if it is to "
                f"compute on its CPU"
            )
        return places

    def _wait_for(self, task: Task, variants: list[dict[str, AbstractDataset]], part: str) -> None:
        """Let workers run a node, once with each set of data sets, and wait until all have."""
        futures = [
            self._client.submit(
                run_node,
                task.node,
                datasets,
                task.run_id,
                task.is_async,
                self._hooks,
                key=f"{task.node.name}-{part}-{uuid.uuid4().hex}",
                resources=resources_of(task.node.tags),
                priority=self._below[task.node.name],
                pure=False,
            )
            for datasets in variants
        ]
        self._running.update(futures)
        try:
            self._client.gather(futures)
        finally:
            self._running.difference_update(futures)


def longest_paths(pipeline: Pipeline) -> dict[str, int]:
    """Node → how many nodes have to run after it, one after another.

    Where workers are few, the nodes with the longest way ahead go first: the whole ends sooner.

    Example:
        >>> a, b = Node(len, "x", "y", name="a"), Node(len, "y", "z", name="b")
        >>> sorted(longest_paths(Pipeline([a, b, Node(len, "x", "w", name="c")])).items())
        [('a', 1), ('b', 0), ('c', 0)]
    """
    below = {node.name: 0 for node in pipeline.nodes}
    for node in reversed(pipeline.nodes):  # sorted: a node comes after those that it needs
        for needed in pipeline.node_dependencies[node]:
            below[needed.name] = max(below[needed.name], below[node.name] + 1)
    return below
