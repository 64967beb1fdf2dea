"""Co-Merge with weights that are fitted to the model's predictions; ours, not the paper's."""

from __future__ import annotations

from dataclasses import replace

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import stack
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.fitted import FittedWeights
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class FittedCoMergeConfig(StrategyConfig):
    """Nothing to set beside what all strategies share: the rest is set where weights are fitted."""


@register("fitted_co_merge", FittedCoMergeConfig, needs="fitted")
def fitted_co_merge(
    experts: dict[str, LoraAdapter], config: FittedCoMergeConfig, fitted: FittedWeights
) -> MergedLayers:
    """``ΔW = Σ_e diag(rows_e) ΔW_e diag(columns_e)``, see :mod:`safetydpo_kedro.merging.fitting`.

    Exact at rank ``Σ_e r_e``, because weights of rows go into B and weights of columns into A.
    """
    for name, layers in layer_by_layer(experts, config):
        present = [fitted.experts.index(expert) for expert in layers]
        columns = fitted.columns[name][present]
        factors = [
            replace(layer, a=layer.a * column.to(layer.a))
            for layer, column in zip(layers.values(), columns, strict=True)
        ]
        yield name, stack(factors, list(fitted.rows[name][present]))
