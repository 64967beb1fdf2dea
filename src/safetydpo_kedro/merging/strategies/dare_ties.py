"""DARE before the sign election of TIES (Yu et al., 2024)."""

from __future__ import annotations

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import from_matrix
from safetydpo_kedro.merging.entries import Election, disjoint_mean
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register
from safetydpo_kedro.merging.strategies.dare_linear import DareLinearConfig, dropped


class DareTiesConfig(DareLinearConfig):
    """The choices of DARE, and one of TIES.

    Attributes:
        election: the sign of an entry is that of the sum (``total``) or of most experts
            (``frequency``).
    """

    election: Election = "total"


@register("dare_ties", DareTiesConfig)
def dare_ties(experts: dict[str, LoraAdapter], config: DareTiesConfig) -> MergedLayers:
    """Disjoint mean of ``drop(ΔW_e)``: random dropping takes the place of TIES' trimming.

    As PEFT's ``dare_ties_svd``. A disjoint mean divides by the number of experts that are left
    in an entry, so the rescaling makes this merge act harder the lower the density.
    """
    for name, layers in layer_by_layer(experts, config):
        like = next(iter(layers.values()))
        deltas = dropped(name, layers, config)
        yield name, from_matrix(disjoint_mean(list(deltas), config.election), like)
