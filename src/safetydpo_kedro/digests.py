"""Content hashes of tensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

CHUNK_BYTES = 1 << 26


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (64 hex digits) over names, dtypes, shapes and bytes of tensors.

    Neither the order of the names nor the device nor the memory format matters. Bytes are read
    in pieces, so that no copy of all of them is made, on no device.

    Args:
        tensors: name → tensor of any shape, dtype and device.

    Example:
        >>> a = torch.eye(2)
        >>> tensors_digest({"a": a}) == tensors_digest({"a": a.clone()})
        True
        >>> tensors_digest({"a": a}) == tensors_digest({"a": a.bfloat16()})
        False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        # The length of the bytes follows from dtype and shape, so no two inputs read the same.
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(f"{header}\n".encode())
        for part in tensor.reshape(-1).view(torch.uint8).split(CHUNK_BYTES):
            digest.update(part.cpu().numpy())
    return digest.hexdigest()
