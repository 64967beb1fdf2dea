"""Co-Merge (SafetyDPO): each unit of the merged layer comes from its most active expert."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.compress import build_layer, stack
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.ownership import OwnershipConfig, unit_weights
from safetydpo_kedro.merging.profile import ActivationProfile
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class CoMergeConfig(StrategyConfig, OwnershipConfig):
    """The paper's rule as we read it, and its variants.

    Attributes:
        granularity: ``delta_row`` picks rows of ``ΔW``, owned by their output unit.
            ``factor_row`` picks rows of A, owned by their rank unit, and rows of B, owned by
            their output unit, each on its own; it keeps rank r, but pairs the B row of one
            expert with A rows of others, and did worse in a prototype.
    """

    granularity: Literal["delta_row", "factor_row"] = "delta_row"


@register("co_merge", CoMergeConfig, needs="profile")
def co_merge(
    experts: dict[str, LoraAdapter], config: CoMergeConfig, profile: ActivationProfile
) -> MergedLayers:
    """``ΔW = Σ_e diag(w_e) ΔW_e`` with ``w_e`` the indicator of the rows that expert e owns.

    "We obtain the merged weights from multiple experts by merging only the most active weights
    per expert." Exact at rank ``Σ_e r_e``; a row that no expert was active in is zero.
    """
    rows = unit_weights(profile.output, config)
    inner = unit_weights(profile.inner, config) if config.granularity == "factor_row" else {}
    for name, layers in layer_by_layer(experts, config):
        present = [profile.experts.index(expert) for expert in layers]
        factors = list(layers.values())
        if config.granularity == "delta_row":
            yield name, stack(factors, list(rows[name][present]))
        else:
            yield name, select_factor_rows(factors, inner[name][present], rows[name][present])


def select_factor_rows(
    layers: list[LoraLayer], inner_weights: Tensor, output_weights: Tensor
) -> LoraLayer:
    """Merge rows of A and rows of B separately, at the largest rank of the experts.

    Args:
        layers: factors of E experts, of one dtype; lower ranks are filled up with zeros.
        inner_weights: ``[E, rank]``, weights of the rows of A.
        output_weights: ``[E, out]``, weights of the rows of B.

    Returns:
        ``A = Σ_e diag(v_e) A_e`` and ``B = Σ_e diag(w_e) s_e B_e``, scale 1.
    """
    rank = inner_weights.shape[1]
    a = layers[0].a.new_zeros(rank, layers[0].a.shape[1])
    b = layers[0].b.new_zeros(layers[0].b.shape[0], rank)
    for layer, inner, output in zip(layers, inner_weights, output_weights, strict=True):
        a[: layer.rank] += inner[: layer.rank, None].to(a) * layer.a
        b[:, : layer.rank] += output[:, None].to(b) * layer.scale * layer.b
    return build_layer(a, b, like=layers[0])
