"""LoRA adapters as plain factors, in memory and in the diffusers file format.

PEFT injects and trains adapters; merging, fingerprinting and reporting need them as named
matrices. :class:`LoraAdapter` is that view: module path inside the UNet → factors A and B.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from safetydpo_kedro.artifacts import write_atomically

UNET_PREFIX = "unet."


@dataclass(frozen=True)
class LoraLayer:
    """Low-rank update of one linear layer: ``ΔW = scale · B A``.

    Attributes:
        a: down projection, ``[rank, in_features]``.
        b: up projection, ``[out_features, rank]``.
        scale: ``alpha / rank`` (or ``alpha / sqrt(rank)`` for rsLoRA).
    """

    a: Tensor
    b: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse factors that do not multiply."""
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise ValueError(
                f"LoRA factors must be A [rank, in] and B [out, rank] of one rank, "
                f"got A {tuple(self.a.shape)} and B {tuple(self.b.shape)}"
            )

    @property
    def rank(self) -> int:
        """Inner dimension of the factorisation."""
        return self.a.shape[0]

    def delta(self) -> Tensor:
        """Dense weight update ``ΔW``, ``[out_features, in_features]``."""
        return self.scale * (self.b @ self.a)


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA over named layers of a UNet.

    Attributes:
        layers: module path inside the UNet (``"mid_block...attn2.to_k"``) → factors.
        metadata: string pairs that travel in the file header (configuration, fingerprints).
    """

    layers: dict[str, LoraLayer]
    metadata: dict[str, str] = field(default_factory=dict)

    def scaled(self, strength: float) -> LoraAdapter:
        """The same adapter with every ``ΔW`` multiplied by ``strength``."""
        layers = {
            name: LoraLayer(layer.a, layer.b, layer.scale * strength)
            for name, layer in self.layers.items()
        }
        return LoraAdapter(layers, self.metadata)


def adapter_state_dict(adapter: LoraAdapter) -> dict[str, Tensor]:
    """Factors under the keys that diffusers' ``load_lora_weights`` reads.

    The scale is folded into B, so that alpha equals rank for every reader of the file and no
    layer needs an alpha of its own.
    """
    state = {}
    for name, layer in sorted(adapter.layers.items()):
        state[f"{UNET_PREFIX}{name}.lora_A.weight"] = layer.a.contiguous()
        state[f"{UNET_PREFIX}{name}.lora_B.weight"] = (layer.b * layer.scale).contiguous()
    return state


def adapter_from_state_dict(
    state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, source: str = "LoRA"
) -> LoraAdapter:
    """Read factors back from diffusers (PEFT-style) keys.

    Raises:
        ValueError: a key is not a LoRA factor of the UNet, or a factor lacks its partner.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        stem, _, kind = key.removesuffix(".weight").rpartition(".")
        if not key.startswith(UNET_PREFIX) or kind not in {"lora_A", "lora_B"}:
            raise ValueError(
                f"{source}: key '{key}' is not of the form 'unet.<module>.lora_A.weight' or "
                f"'….lora_B.weight'; convert the file with diffusers' save_lora_weights first"
            )
        factors.setdefault(stem.removeprefix(UNET_PREFIX), {})[kind] = tensor
    layers = {}
    for name, pair in factors.items():
        if len(pair) != 2:
            raise ValueError(f"{source}: layer '{name}' has only {sorted(pair)}, needs A and B")
        layers[name] = LoraLayer(pair["lora_A"], pair["lora_B"])
    return LoraAdapter(layers, dict(metadata or {}))


def save_adapter(adapter: LoraAdapter, path: Path) -> None:
    """Write ``adapter`` as diffusers LoRA safetensors, atomically.

    The metadata goes into the header as one JSON string: safetensors writes several header
    entries in no fixed order, and equal adapters must give equal bytes.
    """
    header = json.dumps(adapter.metadata, sort_keys=True)
    state = {key: value.detach().cpu() for key, value in adapter_state_dict(adapter).items()}
    with write_atomically(path) as temporary:
        save_file(state, temporary, metadata={"safetydpo_kedro": header})


def load_adapter(path: Path) -> LoraAdapter:
    """Read a LoRA safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else than LoRA factors of a UNet.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no LoRA file at {path}: train or merge it first")
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("safetydpo_kedro", "{}"))
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return adapter_from_state_dict(state, metadata, source=str(path))


def random_adapter(
    shapes: Mapping[str, tuple[int, int]], rank: int, generator: torch.Generator
) -> LoraAdapter:
    """Gaussian factors for layers of the given ``(out, in)`` shapes, for tests and benchmarks."""
    layers = {
        name: LoraLayer(
            torch.randn(rank, n_in, generator=generator) / n_in**0.5,
            torch.randn(n_out, rank, generator=generator) / rank**0.5,
        )
        for name, (n_out, n_in) in shapes.items()
    }
    return LoraAdapter(layers)
