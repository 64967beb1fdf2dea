"""The mean of the experts' weight updates."""

from __future__ import annotations

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import stack
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class LinearConfig(StrategyConfig):
    """Nothing to set beyond what all strategies share."""


@register("linear", LinearConfig)
def linear(experts: dict[str, LoraAdapter], config: LinearConfig) -> MergedLayers:
    """``ΔW = 1/E Σ_e ΔW_e``: the mean of products, not the product of mean factors.

    An expert that does not adapt a layer counts there with ``ΔW_e = 0``.
    """
    for name, layers in layer_by_layer(experts, config):
        yield name, stack(list(layers.values()), [1 / len(experts)] * len(layers))
