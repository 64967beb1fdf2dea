"""The experts of one layer in a common small space, where ``ΔW`` need not be formed.

All ``ΔW_e`` of a layer act between two subspaces of dimension at most ``R = Σ_e r_e``. In
orthonormal bases of these, ``ΔW_e = Q_b C_e Q_aᵀ`` with small cores ``C_e``. Singular values are
the same, and singular vectors are those of the cores, rotated; so a strategy that only looks at
them gets the same result from the cores (Panariello et al., 2025, "Accurate and Efficient
Low-Rank Model Merging in Core Space", use the same bases).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraLayer
from safetydpo_kedro.merging.compress import build_layer


@dataclass(frozen=True)
class CoreSpace:
    """``ΔW_e = Q_b C_e Q_aᵀ`` for the E experts of one layer.

    Attributes:
        q_b: orthonormal columns, ``[out, R_b]`` with ``R_b = min(out, R)``.
        q_a: orthonormal columns, ``[in, R_a]`` with ``R_a = min(in, R)``.
        cores: ``[E, R_b, R_a]``.
        like: a layer of the module.
    """

    q_b: Tensor
    q_a: Tensor
    cores: Tensor
    like: LoraLayer

    def lift(self, left: Tensor, right: Tensor) -> LoraLayer:
        """The layer with the core ``left @ right``, of shapes ``[R_b, k]`` and ``[k, R_a]``."""
        return build_layer(right @ self.q_a.T, self.q_b @ left, self.like)


def core_space(layers: Sequence[LoraLayer]) -> CoreSpace:
    """Bases and cores of the experts of one layer.

    QR of the stacked factors, ``[s_1 B_1 … s_E B_E] = Q_b [L_1 … L_E]`` and
    ``[A_1ᵀ … A_Eᵀ] = Q_a [K_1 … K_E]``, gives ``C_e = L_e K_eᵀ``.

    Args:
        layers: factors of E experts, of one dtype; ranks and scales may differ.

    Example:
        >>> layer = LoraLayer(torch.ones(1, 3), torch.tensor([[2.0], [0.0]]))
        >>> space = core_space([layer, layer])
        >>> torch.allclose(space.q_b @ space.cores[0] @ space.q_a.T, layer.delta(), atol=1e-6)
        True
    """
    ranks = [layer.rank for layer in layers]
    q_b, r_b = torch.linalg.qr(torch.cat([layer.scale * layer.b for layer in layers], dim=1))
    q_a, r_a = torch.linalg.qr(torch.cat([layer.a for layer in layers]).T)
    pairs = zip(r_b.split(ranks, dim=1), r_a.split(ranks, dim=1), strict=True)
    return CoreSpace(q_b, q_a, torch.stack([left @ right.T for left, right in pairs]), layers[0])


def significant(s: Tensor, size: int) -> Tensor:
    """Which singular values are not just rounding.

    Singular vectors of the others are arbitrary; a strategy that looks at vectors has to leave
    them out.

    Args:
        s: singular values of one matrix, ``[k]``.
        size: the longer side of that matrix.

    Returns:
        bool ``[k]``: above ``size · eps · max(s)``, the tolerance of numerical ranks.
    """
    return s > size * torch.finfo(s.dtype).eps * s.max()


def orthonormal_factor(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns: ``P Qᵀ`` of the SVD ``P D Qᵀ`` (Procrustes).

    Args:
        matrix: ``[m, k]``. If its columns are dependent, the factor is free in the directions
            that they do not span; it is zero there (a partial isometry), so that the result is
            unique.

    Returns:
        ``[m, k]``.
    """
    p, d, qt = torch.linalg.svd(matrix, full_matrices=False)
    kept = significant(d, max(matrix.shape)).to(matrix.dtype)
    factor: Tensor = (p * kept) @ qt
    return factor
