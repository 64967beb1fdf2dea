"""KnOTS (Stoica et al., 2025): merge the experts in a basis that they share."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.compress import build_layer
from safetydpo_kedro.merging.config import DensityConfig
from safetydpo_kedro.merging.core import core_space, significant
from safetydpo_kedro.merging.entries import Election, disjoint_mean, trim
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class KnotsConfig(DensityConfig):
    """How the experts' parts are merged in the shared basis.

    Attributes:
        inner: ``ties``, the paper's KnOTS-TIES; or ``mean``, which is the mean of ``ΔW``
            whatever the basis, and so equal to ``linear``.
        density: share of entries of its ``V_e`` that each expert keeps; for ``ties`` only.
        election: as in ``ties``; for ``ties`` only.
    """

    inner: Literal["ties", "mean"] = "ties"
    density: float = Field(default=0.2, gt=0, le=1)
    election: Election = "total"


@register("knots", KnotsConfig)
def knots(experts: dict[str, LoraAdapter], config: KnotsConfig) -> MergedLayers:
    """``[ΔW_1 … ΔW_E] = U S [V_1ᵀ … V_Eᵀ]``, then ``ΔW = U S merge(V_1, …, V_E)ᵀ``.

    Section 4 of "Model Merging with SVD to Tie the KnOTS". The rank is that of the
    concatenation, at most ``Σ_e r_e``, so the result is exact there. An expert that does not
    adapt a layer has ``V_e = 0``.
    """
    for name, layers in layer_by_layer(experts, config):
        yield name, merge_aligned(list(layers.values()), config, len(experts))


def merge_aligned(layers: list[LoraLayer], config: KnotsConfig, count: int) -> LoraLayer:
    """Merge the ``V_e`` of one layer, ``[k, in]`` each.

    The SVD is that of the cores side by side, ``[C_1 … C_E] = U' S [V'_1ᵀ … V'_Eᵀ]``, with
    ``U = Q_b U'`` and ``V_eᵀ = V'_eᵀ Q_aᵀ``; the entries that TIES looks at are those of the
    full ``V_e``. What is only rounding must not vote: directions without weight are left out,
    and so is an expert's part in a direction in which it has none.
    """
    space = core_space(layers)
    u, s, vt = torch.linalg.svd(torch.cat(list(space.cores), dim=1), full_matrices=False)
    size = max(len(space.q_b), len(layers) * len(space.q_a))  # of the dense concatenation
    kept = significant(s, size)
    kept[0] = True  # of a layer that is zero everywhere, keep one direction
    u, s, vt = u[:, kept], s[kept], vt[kept]
    parts = []
    for part in vt.split(space.q_a.shape[1], dim=1):
        real = s * part.norm(dim=1) > size * torch.finfo(s.dtype).eps * s[0]
        parts.append((real[:, None] * part) @ space.q_a.T)
    if config.inner == "mean":
        merged = sum(parts[1:], start=parts[0]) / count
    else:
        trimmed = [trim(part, config.density) for part in parts]
        merged = disjoint_mean(trimmed, config.election)
    return build_layer(merged, space.q_b @ (u * s), like=layers[0])
