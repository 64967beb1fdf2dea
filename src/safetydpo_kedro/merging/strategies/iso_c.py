"""Isotropic merging (Marczak et al., 2025): the sum, with all directions equally strong."""

from __future__ import annotations

import torch

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.core import core_space, significant
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class IsoCConfig(StrategyConfig):
    """Nothing to set beyond what all strategies share."""


@register("iso_c", IsoCConfig)
def iso_c(experts: dict[str, LoraAdapter], config: IsoCConfig) -> MergedLayers:
    """``Σ_e ΔW_e = U diag(σ) Vᵀ``, then ``ΔW = mean(σ) U Vᵀ``.

    Iso-C of "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
    Subspaces". The mean is over the singular values that are not zero, because a sum of LoRAs
    has few of them; the paper's updates have full rank. One expert does not merge to itself.
    """
    for name, layers in layer_by_layer(experts, config):
        space = core_space(list(layers.values()))
        u, s, vt = torch.linalg.svd(space.cores.sum(0), full_matrices=False)
        kept = significant(s, max(space.cores.shape[1:]))
        mean = s.sum() / kept.sum().clamp(min=1)
        yield name, space.lift(u * kept * mean, vt)
