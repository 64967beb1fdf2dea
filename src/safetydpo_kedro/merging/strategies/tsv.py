"""Task singular vectors (Gargiulo et al., 2025): keep the strongest, make them orthogonal."""

from __future__ import annotations

import torch
from pydantic import Field

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.core import core_space, orthonormal_factor, significant
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class TsvConfig(StrategyConfig):
    """How much of each expert enters.

    Attributes:
        kept: share of its rank that each expert keeps, in (0, 1], at least one singular vector.
            None is the paper's ``1/E``, made for updates of full rank; experts of low rank leave
            room for all of their vectors, which 1.0 keeps.
    """

    kept: float | None = Field(default=None, gt=0, le=1)


@register("tsv", TsvConfig)
def tsv(experts: dict[str, LoraAdapter], config: TsvConfig) -> MergedLayers:
    """``ΔW = U⊥ Σ V⊥ᵀ`` of the experts' top singular triples, made orthogonal to each other.

    "Task Singular Vectors: Reducing Task Interference in Model Merging", TSV-Merge: with
    ``ΔW_e ≈ U_e Σ_e V_eᵀ``, ``U = [U_1 … U_E]`` and ``V`` likewise are replaced by their nearest
    orthonormal matrices (Procrustes), ``Σ = diag(Σ_1, …, Σ_E)`` stays.
    """
    share = 1 / len(experts) if config.kept is None else config.kept
    for name, layers in layer_by_layer(experts, config):
        yield name, merge_singular_vectors(list(layers.values()), share)


def merge_singular_vectors(layers: list[LoraLayer], share: float) -> LoraLayer:
    """Orthogonalise in core space, where the bases change neither SVD nor Procrustes.

    Args:
        layers: factors of the experts.
        share: of each expert's rank that is kept.

    Returns:
        A layer of rank ``Σ_e max(1, round(share · r_e))``.
    """
    space = core_space(layers)
    lefts, values, rights = [], [], []
    for layer, core in zip(layers, space.cores, strict=True):
        u, s, vt = torch.linalg.svd(core, full_matrices=False)
        top = max(1, round(share * layer.rank))
        real = significant(s, max(core.shape))[:top]  # vectors without weight must not take room
        lefts.append(u[:, :top] * real)
        values.append(s[:top])
        rights.append(vt[:top].T * real)
    left = orthonormal_factor(torch.cat(lefts, dim=1))
    right = orthonormal_factor(torch.cat(rights, dim=1))
    return space.lift(left * torch.cat(values), right.T)
