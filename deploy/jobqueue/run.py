"""Run the pipelines on Dask workers that a batch system starts as its jobs.

.. code-block:: bash

    pip install dask-jobqueue
    python deploy/jobqueue/run.py deploy/jobqueue/slurm.yml --env sdxl --only-missing-outputs

The scheduler of Dask runs in this process, and so do the submissions: start it where jobs may be
submitted and where it may stay for as long as the run, such as in a small job of its own. The first
argument is the file that describes the jobs, all others go to ``kedro run``. Jobs end with it.
"""

from __future__ import annotations

import pkgutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import yaml

RUNNER = "safetydpo_kedro.runners.DaskRunner"


def main(file: Path, arguments: list[str]) -> int:
    """Start the jobs, wait for workers, and run.

    Args:
        file: with the keys that ``slurm.yml`` explains.
        arguments: for ``kedro run``.

    Returns:
        The exit status of ``kedro run``.
    """
    settings = yaml.safe_load(file.read_text("utf-8"))
    dask.config.set(settings["dask"])
    with pkgutil.resolve_name(settings["cluster"])(**settings["options"]) as cluster:
        print(cluster.job_script(), flush=True)
        cluster.adapt(minimum_jobs=settings["minimum"], maximum_jobs=settings["maximum"])
        wait_for_workers(cluster, settings["wait_for"], settings["patience"])
        address = f"address={cluster.scheduler_address}"
        command = ["kedro", "run", "--runner", RUNNER, "--runner-params", address, *arguments]
        return subprocess.call([sys.executable, "-m", *command])


def wait_for_workers(cluster: Any, count: int, seconds: float) -> None:
    """Until so many are there, or, once the time is over, at least one."""
    try:
        cluster.wait_for_workers(count, timeout=seconds)
    except TimeoutError:
        cluster.wait_for_workers(1)


if __name__ == "__main__":
    # A batch system ends jobs by this signal; as an exit, it lets the jobs of workers end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
