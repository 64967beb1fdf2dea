"""Training state on disk: modules, optimizer and step in one safetensors file, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from safetydpo_kedro.artifacts import write_atomically


def save_checkpoint(
    path: Path, step: int, modules: Mapping[str, nn.Module], optimizer: Optimizer, identity: str
) -> None:
    """Write the state after ``step`` optimizer steps, atomically.

    Args:
        path: the safetensors file.
        step: optimizer steps done.
        modules: name → module whose parameters and buffers belong to the state.
        optimizer: its per-parameter tensors are kept; its hyperparameters come from the caller.
        identity: fingerprint of the configuration and data; compared when resuming.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"module/{name}/{key}"] = value
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= _flat(f"optimizer/{index}", state)
    # Clones, because safetensors refuses tensors that share memory (tied weights).
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in tensors.items()
    }
    tensors["step"] = torch.tensor(step)
    with write_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"identity": identity})


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizer: Optimizer, identity: str
) -> int:
    """Restore the state in place and return the number of steps done, 0 without a checkpoint.

    A checkpoint of another identity (changed parameters, data or model) is left out: the run
    starts afresh and overwrites it.
    """
    if not Path(path).is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        if (file.metadata() or {}).get("identity") != identity:
            return 0
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, module in modules.items():
        prefix = f"module/{name}/"
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, *path, field = key.split("/")
            inner = state.setdefault(int(index), {})
            for name in path:
                inner = inner.setdefault(name, {})
            inner[field] = _number(value)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(tensors["step"])


def _flat(prefix: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors and numbers of an optimizer's state, nested or not, by their path."""
    flat: dict[str, Tensor] = {}
    for key, value in state.items():
        name = f"{prefix}/{key}"
        if isinstance(value, Mapping):
            flat |= _flat(name, value)
        else:
            # The wide type tells a Python number from a tensor when the state is read back.
            wide = torch.float64 if isinstance(value, float) else None
            flat[name] = torch.as_tensor(value, dtype=wide)
    return flat


def _number(value: Tensor) -> Tensor | float | int:
    """The Python number that a wide scalar was before it was saved; other tensors as they are."""
    is_number = value.ndim == 0 and value.dtype in (torch.int64, torch.float64)
    return value.item() if is_number else value
