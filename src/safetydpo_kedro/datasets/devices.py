"""Which device a catalog entry means."""

from __future__ import annotations


def device_named(name: str) -> str:
    """The torch device of a name; ``auto`` is CUDA if there is one, else the CPU."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
