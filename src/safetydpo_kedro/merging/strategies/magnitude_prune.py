"""The sum of the experts' largest entries."""

from __future__ import annotations

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import from_matrix
from safetydpo_kedro.merging.config import DensityConfig
from safetydpo_kedro.merging.entries import add_up, trim
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class MagnitudePruneConfig(DensityConfig):
    """``density`` is the share of entries that each expert keeps in each layer."""


@register("magnitude_prune", MagnitudePruneConfig)
def magnitude_prune(experts: dict[str, LoraAdapter], config: MagnitudePruneConfig) -> MergedLayers:
    """``ΔW = Σ_e trim(ΔW_e)``: as PEFT's ``magnitude_prune_svd``, on entries of ``ΔW``.

    PEFT's ``magnitude_prune``, without ``_svd``, prunes A and B and adds them up apart.
    """
    for name, layers in layer_by_layer(experts, config):
        trimmed = (trim(layer.delta(), config.density) for layer in layers.values())
        yield name, from_matrix(add_up(trimmed), like=next(iter(layers.values())))
