"""Several processes that share a training step: launched from here, joined by accelerate.

Adapters are small, so no wrapper around the model is needed: every process runs its part of the
step, and one sum over all processes of the adapter's gradients makes them equal everywhere.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.launchers import PrepareForLaunch
from accelerate.utils import broadcast, patch_environment, reduce
from accelerate.utils.other import get_free_port
from torch import Tensor, nn
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

POLL_SECONDS = 0.2


class Processes:
    """The processes of a run, seen from one of them; a run of one process is the common case.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.
        device: of this process; None: the model's own.
    """

    def __init__(self, state: PartialState | None = None) -> None:
        self.rank = state.process_index if state else 0
        self.count = state.num_processes if state else 1
        self.device: torch.device | None = state.device if state else None

    @property
    def is_main(self) -> bool:
        """Whether this process reports, draws and saves."""
        return self.rank == 0

    def share(self, parts: Sequence[Any]) -> Sequence[Any]:
        """This process's share of some parts; their number is a multiple of the processes'."""
        each = len(parts) // self.count
        return parts[self.rank * each : (self.rank + 1) * each]

    def add_up(self, tensor: Tensor) -> Tensor:
        """Sum over all processes."""
        return reduce(tensor, "sum") if self.count > 1 else tensor

    def add_up_gradients(self, weights: Sequence[nn.Parameter]) -> None:
        """Let every weight's gradient be the sum over all processes, in one message."""
        if self.count == 1:
            return
        gradients = []
        for weight in weights:
            assert weight.grad is not None  # every part of a step reaches every weight
            gradients.append(weight.grad)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        parts = self.add_up(flat).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    def agree(self, flag: bool) -> bool:
        """What the main process says."""
        if self.count == 1:
            return flag
        return bool(broadcast(torch.tensor(int(flag), device=self.device)))


def launch(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    count: int,
    on_message: Callable[[Any], None],
    use_cpu: bool,
) -> None:
    """Call ``function(processes, send, *arguments)`` in ``count`` fresh processes and wait.

    Args:
        function: of a module, so that it can be found from another process.
        arguments: picklable; tensors travel as shared memory.
        count: of processes, at least 2.
        on_message: called in this process with everything that a process sends.
        use_cpu: the processes share the CPU instead of having a GPU each.

    Raises:
        ValueError: there are fewer GPUs than processes.
        ProcessRaisedException: a process raised; its traceback is in the message.
    """
    if not use_cpu and (found := torch.cuda.device_count()) < count:
        raise ValueError(
            f"expert_training.num_processes is {count}, but there are {found} GPUs: lower it to "
            f"at most {found}"
        )
    messages = get_context("spawn").Queue()
    threads = max(1, torch.get_num_threads() // count) if use_cpu else torch.get_num_threads()
    environment = {
        "world_size": count,
        "local_world_size": count,
        "master_addr": "127.0.0.1",
        "master_port": get_free_port(),
    }
    kind = "MULTI_CPU" if use_cpu else "MULTI_GPU"
    entry = PrepareForLaunch(_enter, distributed_type=kind)
    with patch_environment(**environment):
        workers = start_processes(
            entry,
            args=(function, tuple(arguments), messages, use_cpu, threads),
            nprocs=count,
            join=False,
            start_method="spawn",
        )
    try:
        while not workers.join(timeout=POLL_SECONDS):
            _pass_on(messages, on_message)
        _pass_on(messages, on_message)
    finally:  # of no use to anybody if this process is interrupted
        for process in workers.processes:
            process.terminate()


def _pass_on(messages: Any, on_message: Callable[[Any], None]) -> None:
    while True:
        try:
            on_message(messages.get(timeout=POLL_SECONDS))
        except queue.Empty:
            return


def _enter(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    messages: Any,
    use_cpu: bool,
    threads: int,
) -> None:
    """The first thing that a fresh process does."""
    state = PartialState(cpu=use_cpu)
    torch.set_num_threads(threads)  # accelerate has its own idea
    try:
        function(Processes(state), messages.put, *arguments)
    finally:
        state.destroy_process_group()
