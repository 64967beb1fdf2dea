"""Task arithmetic (Ilharco et al., 2023): a weighted sum of the experts' weight updates."""

from __future__ import annotations

from pydantic import Field, FiniteFloat

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import stack
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.experts import group_by_layer
from safetydpo_kedro.merging.profile import ActivationProfile
from safetydpo_kedro.merging.registry import register


class TaskArithmeticConfig(StrategyConfig):
    """Weights of the sum.

    Attributes:
        weights: expert name → weight λ_e, for every expert; negative ones subtract. None means 1
            for all: the plain sum, scaled by ``strength``.
    """

    weights: dict[str, FiniteFloat] | None = Field(default=None)


@register("task_arithmetic", TaskArithmeticConfig)
def task_arithmetic(
    experts: dict[str, LoraAdapter],
    config: TaskArithmeticConfig,
    profile: ActivationProfile | None,
) -> LoraAdapter:
    """``ΔW = Σ_e λ_e ΔW_e``.

    Raises:
        ValueError: the weights name other experts than the given ones.
    """
    weights = dict.fromkeys(experts, 1.0) if config.weights is None else config.weights
    if set(weights) != set(experts):
        raise ValueError(
            f"task_arithmetic: weights for {sorted(weights)}, but the experts are "
            f"{sorted(experts)}; give one weight for each"
        )
    return LoraAdapter(
        {
            name: stack(list(layers.values()), [weights[expert] for expert in layers])
            for name, layers in group_by_layer(experts).items()
        }
    )
