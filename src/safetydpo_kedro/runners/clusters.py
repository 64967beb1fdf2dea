"""Clusters of Dask: one on this machine, or one that is running already."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from safetydpo_kedro.runners.checks import GPU_RESOURCE, workers_of

logger = logging.getLogger(__name__)

LOGGING = Path(__file__).with_name("assets") / "logging.yml"


def local_cluster(workers: int | None) -> LocalCluster:
    """Worker processes on this machine, each with one thread and one place for a ``gpu`` node.

    They listen on the loopback interface only. Each takes a GPU of its own, if there are any.

    Args:
        workers: how many; None: one for each visible GPU, or for each CPU core.
    """
    # Else they may start no processes of their own, which `num_processes` does. Not for a moment
    # only: a worker that was lost is started again later.
    dask.config.set({"distributed.worker.daemon": False})
    with _environment(
        # A spawned process imports what is running here, and Kedro's command announces itself.
        KEDRO_LOGGING_CONFIG=str(LOGGING),
        DASK_LOGGING__DISTRIBUTED="warning",
        TQDM_DISABLE="1",  # bars of libraries; those of the project report to this process
    ):
        return LocalCluster(
            n_workers=workers or len(visible_gpus()) or os.cpu_count() or 1,
            threads_per_worker=1,
            resources={GPU_RESOURCE: 1},
            dashboard_address="127.0.0.1:0",
        )


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables for processes that are started meanwhile."""
    before = {name: os.environ[name] for name in variables.keys() & os.environ.keys()}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def connect(cluster: LocalCluster | str, seconds: float) -> Iterator[Client]:
    """A client of a cluster that has at least one worker.

    Args:
        cluster: the cluster, or the address of its scheduler.
        seconds: how long to wait for the scheduler, and for the first worker.

    Raises:
        ConnectionError: no scheduler answers there.
        TimeoutError: it has no workers.
    """
    try:
        client = Client(cluster, timeout=seconds, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {cluster} ({error}): start one with `dask scheduler`, "
            f"or leave --runner-params address out to use this machine"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=seconds)
        except TimeoutError as error:
            raise TimeoutError(
                f"the Dask scheduler at {client.scheduler.address} has no worker after {seconds:g} "
                f"seconds: start some with `dask worker ADDRESS --resources GPU=1 --nthreads 1`"
            ) from error
        logger.info("%d workers at %s", len(workers_of(client)), client.scheduler.address)
        yield client


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(filter(None, named.split(",")))
    return tuple(map(str, range(torch.cuda.device_count())))
