"""Exact sums of LoRA updates as one LoRA, and their best approximation at a lower rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraLayer


def build_layer(a: Tensor, b: Tensor, like: LoraLayer) -> LoraLayer:
    """A layer of other factors in the place of ``like``.

    Every new layer of this package is made here, so that what a layer knows beside its factors
    is never lost.

    Args:
        a: ``[rank, in]``.
        b: ``[out, rank]``.
        like: a layer of the same module; its scale is not taken over.

    Returns:
        ``ΔW = b a``, scale 1.
    """
    return replace(like, a=a, b=b, scale=1.0)


def cast_layer(layer: LoraLayer, dtype: torch.dtype) -> LoraLayer:
    """The same layer with factors of another dtype."""
    return replace(layer, a=layer.a.to(dtype), b=layer.b.to(dtype))


def from_matrix(delta: Tensor, like: LoraLayer) -> LoraLayer:
    """Write a dense ``ΔW``, ``[out, in]``, as factors; one of them is the identity.

    Returns:
        A layer of rank ``min(out, in)``; :func:`truncate_layer` brings it down.
    """
    n_out, n_in = delta.shape
    identity = torch.eye(min(n_out, n_in), dtype=delta.dtype, device=delta.device)
    return (
        build_layer(delta, identity, like) if n_out < n_in else build_layer(identity, delta, like)
    )


def stack(layers: Sequence[LoraLayer], weights: Sequence[Tensor | float]) -> LoraLayer:
    """Write ``Σ_e diag(w_e) ΔW_e`` as one layer of rank ``Σ_e r_e``, without approximation.

    ``A = [A_1; …; A_E]`` and ``B = [diag(w_1) s_1 B_1 … diag(w_E) s_E B_E]``; averaging A and B
    on their own would mix ``B_i A_j`` of different experts into the sum.

    Args:
        layers: factors of E experts, ``ΔW`` of one shape ``[out, in]``.
        weights: for each expert a number, or one number per row of ``ΔW``, ``[out]``.

    Returns:
        A layer of scale 1, in the widest dtype of the factors.
    """
    dtype = common_dtype(layers)
    ups = []
    for layer, weight in zip(layers, weights, strict=True):
        weight = torch.as_tensor(weight, dtype=torch.float64, device=layer.b.device)
        ups.append((weight.reshape(-1, 1) * layer.scale * layer.b.double()).to(dtype))
    a = torch.cat([layer.a.to(dtype) for layer in layers])
    return build_layer(a, torch.cat(ups, dim=1), like=layers[0])


def truncate_layer(
    layer: LoraLayer, rank: int, precision: torch.dtype = torch.float64
) -> tuple[LoraLayer, float]:
    """Truncated SVD of ``ΔW = s B A`` that never forms ``ΔW``.

    With ``s B = Q_b R_b`` and ``Aᵀ = Q_a R_a``, the singular values of ``ΔW`` are those of the
    small core ``R_b R_aᵀ``, whose sides are at most the layer's rank.

    Args:
        layer: factors of rank R.
        rank: rank to keep; if R is not larger, the layer is returned as it is.
        precision: dtype of the arithmetic.

    Returns:
        The layer at rank ``rank``, in its own dtype, its singular values split evenly between A
        and B; and the relative Frobenius error, in [0, 1].
    """
    if layer.rank <= rank:
        return layer, 0.0
    q_b, r_b = torch.linalg.qr(layer.scale * layer.b.to(precision))
    q_a, r_a = torch.linalg.qr(layer.a.to(precision).T)
    u, s, vt = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    root = s[:rank].sqrt()
    a = root[:, None] * (vt[:rank] @ q_a.T)
    b = (q_b @ u[:, :rank]) * root
    norm = s.norm().item()
    error = s[rank:].norm().item() / norm if norm > 0 else 0.0
    return build_layer(a.to(layer.a.dtype), b.to(layer.b.dtype), like=layer), error


def common_dtype(layers: Sequence[LoraLayer]) -> torch.dtype:
    """The dtype that holds the factors of all layers without loss."""
    return reduce(torch.promote_types, [t.dtype for layer in layers for t in (layer.a, layer.b)])
