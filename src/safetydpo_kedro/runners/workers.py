"""What happens in the worker processes of a Dask cluster."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from distributed import Worker, WorkerPlugin, get_worker
from kedro.framework.hooks.manager import (
    _create_hook_manager,
    _register_hooks,
    _register_hooks_entry_points,
)
from kedro.framework.project import configure_project, settings
from kedro.io import AbstractDataset, DataCatalog
from kedro.pipeline.node import Node
from kedro.runner.task import Task
from tqdm.std import tqdm

from safetydpo_kedro.artifacts import package_versions
from safetydpo_kedro.hooks.threads import import_for_threads
from safetydpo_kedro.progress import show_bars_as
from safetydpo_kedro.runners.progress import TOPIC

PACKAGE = "safetydpo_kedro"
# Plugins whose hooks of data sets fail without those of a session, which workers do not have.
NEEDS_SESSION = ("kedro-viz",)
LOGGERS = ("", "kedro", PACKAGE)


class StoppedError(RuntimeError):
    """The run that a worker was working for has ended, or does not want the result any more."""


def run_node(
    node: Node,
    datasets: Mapping[str, AbstractDataset],
    run_id: str | None,
    is_async: bool,
    hooks: Iterable[Any] = (),
) -> None:
    """Load inputs, run a node, save outputs, and call the hooks of nodes and data sets.

    Args:
        node: the node.
        datasets: its inputs and outputs by name.
        run_id: of the run.
        is_async: load and save in threads.
        hooks: more hooks than those of the settings.
    """
    # Not by Task(parallel=True): its set-up of spawned processes configures logging without end.
    manager = _create_hook_manager()
    _register_hooks(manager, (*settings.HOOKS, *hooks))
    _register_hooks_entry_points(manager, (*settings.DISABLE_HOOKS_FOR_PLUGINS, *NEEDS_SESSION))
    Task(
        node=node,
        catalog=DataCatalog(dict(datasets)),
        hook_manager=manager,
        is_async=is_async,
        run_id=run_id,
    ).execute()


@dataclass
class WorkerSetup(WorkerPlugin):
    """Makes a worker process like the process that starts the run, now and when one joins later.

    Attributes:
        folder: working directory, where relative paths of parameters begin.
        threads: of torch; their number decides the last bits of sums.
        versions: package → version.
        levels: logger → level.
        gpus: visible GPUs of which each worker takes one; empty: workers take what they see.
    """

    folder: str
    threads: int
    versions: Mapping[str, str]
    levels: Mapping[str, int]
    gpus: tuple[str, ...] = ()
    name: ClassVar[str] = PACKAGE

    @classmethod
    def of_this_process(cls, gpus: tuple[str, ...] = ()) -> WorkerSetup:
        """As this process is."""
        import torch

        levels = {name: logging.getLogger(name).getEffectiveLevel() for name in LOGGERS}
        return cls(os.getcwd(), torch.get_num_threads(), package_versions(), levels, gpus)

    def setup(self, worker: Worker) -> None:
        """Prepare the process.

        Raises:
            RuntimeError: it has packages of other versions.
        """
        if self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[int(worker.name) % len(self.gpus)]
        import torch

        self._refuse_other_versions(worker)
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        configure_project(PACKAGE)
        torch.set_num_threads(self.threads)
        # Records go to the process that started the run, and only there.
        logging.getLogger().handlers = []
        logging.getLogger("distributed").setLevel(logging.WARNING)
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        show_bars_as(WorkerBar)
        if worker.state.nthreads > 1:
            import_for_threads()

    def _refuse_other_versions(self, worker: Worker) -> None:
        own = package_versions()
        others = [
            f"{name} {own.get(name, 'none')} instead of {version}"
            for name, version in self.versions.items()
            if own.get(name) != version
        ]
        if others:
            raise RuntimeError(
                f"worker {worker.address} has {', '.join(others)}: install the same versions "
                f"there as where the run is started"
            )


class WorkerBar(tqdm):  # type: ignore[type-arg]
    """A progress bar that reports to the process that started the run.

    It also ends the work, by :class:`StoppedError`, once nobody wants the result any more: the
    run has failed elsewhere, or its process is gone.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            self._worker: Worker | None = get_worker()
            self._task = self._worker.get_current_task()
        except (ValueError, KeyError):  # in a thread of the task's own
            self._worker = None
        self._closed = False
        options.setdefault("disable", False)  # also where other bars of the worker are switched off
        super().__init__(*args, **options | {"file": io.StringIO()})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Report instead of drawing."""
        self._report()

    def update(self, n: float | None = 1) -> bool | None:
        """Count, unless the work should end.

        Raises:
            StoppedError: it should.
        """
        if self._worker is not None:
            task = self._worker.state.tasks.get(self._task)
            if task is None or task.state == "cancelled":
                raise StoppedError(f"{self._task}: its run has ended")
        return super().update(n)

    def close(self) -> None:
        """Report the end."""
        self._closed = True
        if not self.disable:
            self._report()
        super().close()

    def _report(self) -> None:
        if self._worker is None:
            return
        event = {
            "worker": self._worker.address,
            "bar": id(self),
            "label": self.desc.removesuffix(": "),
            "unit": self.unit,
            "done": self.n,
            "total": self.total,
            "closed": self._closed,
        }
        self._worker.log_event(TOPIC, event)
