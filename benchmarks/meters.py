"""Three ways to learn the peak memory of some computation: compute it, profile it, ask the device.

*Computed*: the computation runs on fake tensors, which have shapes and no values, and a dispatch
mode adds up the storages that are alive. It takes seconds and no memory, whatever the model's
size. Fake tensors are CPU tensors: PyTorch then picks the flash attention kernel, whose memory is
that of the GPU's, while fake CUDA tensors would get the kernel that holds all attention weights.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class PeakMemory(TorchDispatchMode):
    """Adds up the storages that operators return, until they are freed.

    ``torch.distributed._tools.mem_tracker`` does the same by kinds of tensors, but refuses modules
    with frozen weights, which is all of a model under a LoRA.

    Attributes:
        now: bytes alive.
        peak: most bytes that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = WeakIdKeyDictionary()

    def track(self, tensors: Iterable[Any]) -> None:
        """Count the storages of some tensors; other objects are passed over."""
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage in self._seen:
                continue
            size = self._seen[storage] = storage.nbytes()
            self.now += size
            weakref.finalize(storage, self._free, size)
        self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.track(tree_leaves(result))
        return result


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of some tensors, a shared storage counted once."""
    return sum({t.untyped_storage(): t.untyped_storage().nbytes() for t in tensors}.values())


def computed_peak(resident: Iterable[Tensor], compute: Callable[[], object]) -> int:
    """Peak bytes of ``compute``, with the ``resident`` tensors that were there before."""
    with PeakMemory() as memory:
        memory.track(resident)
        compute()
    return memory.peak


def profiled_peak(resident: Iterable[Tensor], compute: Callable[[], object]) -> int:
    """The same, from the allocations that PyTorch's profiler sees on the CPU."""
    resident = size_of(resident)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        compute()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return resident + peak


def device_peak(resident: Iterable[Tensor], compute: Callable[[], object]) -> int:
    """The same, from the CUDA allocator; ``resident`` is in it already."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    compute()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


class Meter(NamedTuple):
    """A way to learn a peak.

    Attributes:
        device: where the tensors have to be.
        tensors: the context in which they are made.
        peak: from the tensors that are there before, and the computation, to bytes.
    """

    device: str
    tensors: Callable[[], AbstractContextManager]
    peak: Callable[[Iterable[Tensor], Callable[[], object]], int]


COMPUTED = Meter("cpu", lambda: FakeTensorMode(allow_non_fake_inputs=True), computed_peak)
PROFILED = Meter("cpu", nullcontext, profiled_peak)
DEVICE = Meter("cuda", nullcontext, device_peak)
