"""Tensors of several files as one, of which only the rows in use are read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class StackedRows:
    """Tensors behind each other along their first dimension, without being joined.

    A cache of many shards is larger than the memory; an expert needs a seventh of its rows. The
    parts may be memory-mapped: what is not asked for is not read.

    Args:
        parts: K tensors ``[N_k, ...]`` of one dtype, alike but for N_k.

    Raises:
        ValueError: there are no parts, or they are not alike.

    Example:
        >>> rows = StackedRows([torch.zeros(2, 3), torch.ones(1, 3)])
        >>> rows.shape, rows[torch.tensor([2, 0])][:, 0]
        (torch.Size([3, 3]), tensor([1., 0.]))
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        kinds = {(part.dtype, part.shape[1:]) for part in parts}
        if len(kinds) != 1:
            raise ValueError(
                f"rows of one shape and dtype are needed, got {sorted(map(str, kinds))}"
            )
        self.parts = list(parts)
        self.dtype, inner = kinds.pop()
        self.ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self.shape = torch.Size([int(self.ends[-1]), *inner])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Some rows as a tensor of their own; ``rows`` are positions, a mask or a slice."""
        index = torch.arange(len(self))[rows]
        part = torch.bucketize(index, self.ends, right=True)
        result = torch.empty(len(index), *self.shape[1:], dtype=self.dtype)
        for k in part.unique().tolist():
            here = part == k
            start = int(self.ends[k]) - len(self.parts[k])
            result[here] = self.parts[k][index[here] - start]
        return result
