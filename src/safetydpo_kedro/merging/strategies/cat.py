"""The sum of the experts' weight updates, as stacked factors and never cut."""

from __future__ import annotations

from pydantic import field_validator

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import stack
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register


class CatConfig(StrategyConfig):
    """``rank`` must stay None: the merge has the rank ``Σ_e r_e``."""

    @field_validator("rank")
    @classmethod
    def _no_rank(cls, rank: int | None) -> int | None:
        if rank is not None:
            raise ValueError(
                f"cat keeps the stacked factors as they are, got rank {rank}; leave it out, or "
                f"use task_arithmetic or svd, which cut the same sum"
            )
        return rank


@register("cat", CatConfig)
def cat(experts: dict[str, LoraAdapter], config: CatConfig) -> MergedLayers:
    """``A = [A_1; …; A_E]``, ``B = [λ_1 s_1 B_1 … λ_E s_E B_E]``, as PEFT's ``cat``.

    PEFT multiplies A by weight and scale, which gives the same ``ΔW = Σ_e λ_e ΔW_e``.
    """
    for name, layers in layer_by_layer(experts, config):
        yield name, stack(list(layers.values()), [1.0] * len(layers))
