"""What a pipeline and a cluster must be like, seen before any node runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from safetydpo_kedro.datasets.freshness import manifest_path

if TYPE_CHECKING:
    from distributed import Client

GPU_TAG, GPU_RESOURCE = "gpu", "GPU"


def refuse_in_memory(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Refuse artifacts that one node would hand to another in memory.

    Raises:
        ValueError: there are some.
    """
    made = {name: node.name for node in pipeline.nodes for name in node.outputs}
    in_memory = [
        f"'{name}' of node {node}"
        for name, node in made.items()
        if name not in catalog or getattr(catalog.get(name), "_EPHEMERAL", False)
    ]
    if in_memory:
        raise ValueError(
            f"{len(in_memory)} outputs are kept in memory, where other workers cannot see them: "
            f"{', '.join(in_memory)}. Give each an entry with a path in the catalog, or run this "
            f"pipeline with --runner SequentialRunner"
        )


def refuse_other_disks(client: Client, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Refuse workers that do not see the folder of an artifact which lies on a disk.

    Raises:
        RuntimeError: some do not.
    """
    manifests = (manifest_path(catalog.get(name)) for name in sorted(pipeline.all_outputs()))
    local = next((path for path in manifests if isinstance(path, Path)), None)
    if local is None:
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".workers-see-this.", dir=local.parent) as token:
        seen = client.run(os.path.exists, token.name)
    blind = sorted(worker for worker, sees in seen.items() if not sees)
    if blind:
        raise RuntimeError(
            f"{len(blind)} workers do not see {local.parent} as this process does, among them "
            f"{blind[0]}: mount the project's folder there, at the same path, or put artifacts on "
            f"object storage"
        )


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """Address → description of each worker that the scheduler knows now.

    Not by ``Client.scheduler_info``: what the client knows of workers it drops every few seconds,
    also between asking the scheduler and answering.
    """
    identity: dict[str, Any] = client.sync(client.scheduler.identity, n_workers=-1)
    return identity["workers"]


def resources_of(tags: set[str]) -> dict[str, int]:
    """What a node with these tags needs of a worker.

    Example:
        >>> resources_of({"gpu", "slow"}), resources_of(set())
        ({'GPU': 1}, {})
    """
    return {GPU_RESOURCE: 1} if GPU_TAG in tags else {}


def slots(workers: Mapping[str, Mapping[str, Any]], needed: Mapping[str, int]) -> int:
    """How many tasks with these needs the workers can run at once.

    Args:
        workers: of :func:`workers_of`.
        needed: resource → amount for one task.

    Example:
        >>> workers = {
        ...     "tcp://a": {"nthreads": 2, "resources": {"GPU": 2.0}},
        ...     "tcp://b": {"nthreads": 1, "resources": {}},
        ... }
        >>> slots(workers, {"GPU": 1}), slots(workers, {})
        (2, 3)
    """
    return sum(
        min(
            [worker["nthreads"]]
            + [int(worker["resources"].get(name, 0) // amount) for name, amount in needed.items()]
        )
        for worker in workers.values()
    )
