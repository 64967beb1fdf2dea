"""Memory that runs out: told from other errors, whatever device it is of."""

from __future__ import annotations

import torch

# What torch's allocator of main memory says; it has no exception of its own.
_ON_CPU = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, a GPU's or the main memory.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you ..."))
        True
        >>> is_out_of_memory(RuntimeError("shape '[2, 3]' is invalid for input of size 5"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ON_CPU)
