"""The mean of the experts' factors, A and B apart, which is not the mean of their updates."""

from __future__ import annotations

import math

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.compress import build_layer
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class LinearFactorsConfig(StrategyConfig):
    """Nothing to set beyond what all strategies share."""


@register("linear_factors", LinearFactorsConfig)
def linear_factors(experts: dict[str, LoraAdapter], config: LinearFactorsConfig) -> MergedLayers:
    """``A = 1/E Σ_e ±√|λ_e s_e| A_e`` and ``B = 1/E Σ_e √|λ_e s_e| B_e``, ± the sign of λ_e s_e.

    PEFT's ``linear`` at weights ``λ_e / E²``. Here to compare with what others do, not to use:
    ``B A = 1/E² Σ_ij B_i A_j`` holds E(E−1) products of factors that were never trained together
    against E that were, and an expert whose A and B are rotated inside, which leaves its ``ΔW``
    as it is, gives another merge. Only experts that share A are averaged rightly.

    Experts of lower rank are filled up with zeros; PEFT refuses them.
    """
    for name, layers in layer_by_layer(experts, config):
        yield name, mean_factors(list(layers.values()), len(experts))


def mean_factors(layers: list[LoraLayer], count: int) -> LoraLayer:
    """Mean of A and of B over ``count`` experts, of which the absent ones are zero."""
    rank = max(layer.rank for layer in layers)
    a = layers[0].a.new_zeros(rank, layers[0].a.shape[1])
    b = layers[0].b.new_zeros(layers[0].b.shape[0], rank)
    for layer in layers:
        root = math.sqrt(abs(layer.scale)) / count
        a[: layer.rank] += math.copysign(root, layer.scale) * layer.a
        b[:, : layer.rank] += root * layer.b
    return build_layer(a, b, like=layers[0])
