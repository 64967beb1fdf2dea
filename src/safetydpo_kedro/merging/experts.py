"""The experts side by side: checked, in one order, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer


def check_experts(experts: Mapping[str, LoraAdapter]) -> dict[str, LoraAdapter]:
    """Refuse experts that cannot be merged; return the others sorted by name.

    The order decides ties and the order of stacked factors, so fixing it makes every result
    independent of the order in which experts were given. Experts may differ in rank, scale and
    in the layers they adapt.

    Args:
        experts: expert name → adapter.

    Returns:
        The same adapters, sorted by name.

    Raises:
        ValueError: there are no experts, a factor is not finite, or two experts adapt one layer
            with different ``ΔW`` shapes.
    """
    if not experts:
        raise ValueError("no experts to merge, expected at least 1")
    ordered = dict(sorted(experts.items()))
    for name, by_expert in group_by_layer(ordered).items():
        first, reference = next(iter(by_expert.items()))
        for expert, layer in by_expert.items():
            finite = layer.a.isfinite().all() and layer.b.isfinite().all()
            if not finite or not math.isfinite(layer.scale):
                raise ValueError(
                    f"expert '{expert}', layer '{name}': NaN or infinite values "
                    f"(scale {layer.scale}); train this expert again"
                )
            if layer.weight_shape != reference.weight_shape:
                raise ValueError(
                    f"expert '{expert}', layer '{name}': ΔW has shape {layer.weight_shape}, but "
                    f"{reference.weight_shape} in expert '{first}'; "
                    f"experts must adapt the same base model"
                )
    return ordered


def delta_shape(layer: LoraLayer) -> tuple[int, int]:
    """Shape of the layer's ``ΔW`` as a matrix; of a convolution ``(out, in · kh · kw)``."""
    return layer.b.shape[0], layer.a.shape[1]


def group_by_layer(experts: Mapping[str, LoraAdapter]) -> dict[str, dict[str, LoraLayer]]:
    """Layer name → expert name → factors, over the union of all layers, sorted by layer name.

    An expert that does not adapt a layer has no entry there: its ``ΔW`` is zero.
    """
    names = sorted({name for adapter in experts.values() for name in adapter.layers})
    return {
        name: {
            expert: adapter.layers[name]
            for expert, adapter in experts.items()
            if name in adapter.layers
        }
        for name in names
    }
