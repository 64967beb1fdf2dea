"""TIES merging (Yadav et al., 2023): trim, elect sign, disjoint mean."""

from __future__ import annotations

from pydantic import Field

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.compress import from_matrix
from safetydpo_kedro.merging.config import DensityConfig
from safetydpo_kedro.merging.entries import Election, disjoint_mean, trim
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class TiesConfig(DensityConfig):
    """The two choices of TIES.

    Attributes:
        density: share of entries that each expert keeps in each layer; 0.2 is the paper's. The
            paper trims over the whole model at once; layers are the unit here, as in PEFT.
        election: the sign of an entry is that of the sum (``total``, the paper's) or of most
            experts (``frequency``).
    """

    density: float = Field(default=0.2, gt=0, le=1)
    election: Election = "total"


@register("ties", TiesConfig)
def ties(experts: dict[str, LoraAdapter], config: TiesConfig) -> MergedLayers:
    """Mean, entry by entry, of the trimmed ``ΔW_e`` that have the elected sign.

    Section 3.2 and algorithm 1 of "TIES-Merging: Resolving Interference When Merging Models".
    PEFT's ``ties_svd`` divides by the same count of agreeing experts; it elects before it
    weights, so the two differ where weights do. PEFT's ``ties`` works on A and B apart.
    """
    for name, layers in layer_by_layer(experts, config):
        yield name, merge_layer(list(layers.values()), config)


def merge_layer(layers: list[LoraLayer], config: TiesConfig) -> LoraLayer:
    """TIES of one layer; all its dense updates are held at once."""
    trimmed = [trim(layer.delta(), config.density) for layer in layers]
    return from_matrix(disjoint_mean(trimmed, config.election), like=layers[0])
