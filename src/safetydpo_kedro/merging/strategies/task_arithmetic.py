"""Task arithmetic (Ilharco et al., 2023): a weighted sum of the experts' weight updates."""

from __future__ import annotations

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import stack
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class TaskArithmeticConfig(StrategyConfig):
    """The weights λ_e of the sum are those that all strategies have."""


@register("task_arithmetic", TaskArithmeticConfig)
def task_arithmetic(experts: dict[str, LoraAdapter], config: TaskArithmeticConfig) -> MergedLayers:
    """``ΔW = Σ_e λ_e ΔW_e``, scaled by ``strength``."""
    for name, layers in layer_by_layer(experts, config):
        yield name, stack(list(layers.values()), [1.0] * len(layers))
