"""The sum of the experts' weight updates, cut to one expert's rank."""

from __future__ import annotations

from collections.abc import Sequence

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import stack
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class SvdConfig(StrategyConfig):
    """``rank`` None is the largest rank of an expert in the layer, as in PEFT's ``svd``."""

    def rank_limit(self, ranks: Sequence[int]) -> int:
        """Largest rank of a merged layer, given the ranks of the experts that adapt it."""
        return max(ranks) if self.rank is None else self.rank


@register("svd", SvdConfig)
def svd(experts: dict[str, LoraAdapter], config: SvdConfig) -> MergedLayers:
    """The best approximation of ``Σ_e λ_e ΔW_e`` at rank ``rank`` (Eckart-Young).

    Same as PEFT's ``svd``, but in the core space of the stacked factors, without a dense SVD.
    """
    for name, layers in layer_by_layer(experts, config):
        yield name, stack(list(layers.values()), [1.0] * len(layers))
