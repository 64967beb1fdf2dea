"""Merging strategies by name, behind one signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.merging.compress import MergeResult, truncate
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.experts import check_experts, group_by_layer
from safetydpo_kedro.merging.profile import ActivationProfile

MergeFunction = Callable[[dict[str, LoraAdapter], Any, ActivationProfile | None], LoraAdapter]


@dataclass(frozen=True)
class Strategy:
    """One way to merge.

    Attributes:
        function: (experts sorted by name, configuration, profile) → merged layers, exact, at
            strength 1; what all strategies share is done by :func:`merge`.
        config: class of its configuration.
        needs_profile: whether it needs an activation profile of exactly these experts.
    """

    function: MergeFunction
    config: type[StrategyConfig]
    needs_profile: bool


_STRATEGIES: dict[str, Strategy] = {}


def register(
    name: str, config: type[StrategyConfig], needs_profile: bool = False
) -> Callable[[MergeFunction], MergeFunction]:
    """Make a function a strategy; it must live in a module of ``merging/strategies/``.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(function: MergeFunction) -> MergeFunction:
        if name in _STRATEGIES:
            raise ValueError(f"merge strategy '{name}' is registered twice, choose another name")
        _STRATEGIES[name] = Strategy(function, config, needs_profile)
        return function

    return decorate


def available_strategies() -> list[str]:
    """Names that :func:`merge` takes, sorted."""
    return sorted(_STRATEGIES)


def parse_config(strategy: str, config: Mapping[str, Any] | StrategyConfig) -> StrategyConfig:
    """Check a strategy's configuration, so that a typo shows before hours of training.

    Raises:
        ValueError: the strategy, a key or a value is not one it knows.
    """
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"unknown merge strategy '{strategy}', expected one of {available_strategies()}"
        )
    expected = _STRATEGIES[strategy].config
    if isinstance(config, expected):
        return config
    values = config.model_dump() if isinstance(config, StrategyConfig) else dict(config)
    try:
        return expected.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"configuration of merge strategy '{strategy}': {error}") from error


def merge(
    strategy: str,
    experts: Mapping[str, LoraAdapter],
    config: Mapping[str, Any] | StrategyConfig | None = None,
    profile: ActivationProfile | None = None,
) -> MergeResult:
    """Merge experts into one LoRA.

    Args:
        strategy: a name in :func:`available_strategies`.
        experts: expert name → adapter; ranks, scales and adapted layers may differ. The order
            does not matter.
        config: the strategy's configuration, see its config class; None means all defaults.
        profile: activation profile of these experts, for strategies that need one.

    Returns:
        The adapter, in the experts' dtype, with strategy, configuration and expert names in its
        metadata; and the relative error of each layer, zero unless ``config.rank`` cut it.

    Raises:
        ValueError: unknown strategy or setting, experts that do not fit together, or a profile
            that is missing or was made of other experts.
    """
    config = parse_config(strategy, config or {})
    experts = check_experts(experts)
    if _STRATEGIES[strategy].needs_profile:
        _check_profile(strategy, experts, profile)
    merged = _STRATEGIES[strategy].function(experts, config, profile).scaled(config.strength)
    metadata = {
        "merge_strategy": strategy,
        "merge_config": json.dumps(config.model_dump(), sort_keys=True),
        "merge_experts": json.dumps(list(experts)),
    }
    merged = LoraAdapter(merged.layers, metadata)
    if config.rank is None:
        return MergeResult(merged, dict.fromkeys(merged.layers, 0.0))
    return truncate(merged, config.rank)


def _check_profile(
    strategy: str, experts: Mapping[str, LoraAdapter], profile: ActivationProfile | None
) -> None:
    """Refuse a profile that does not describe these experts."""
    if profile is None:
        raise ValueError(
            f"merge strategy '{strategy}' needs an activation profile; record one with "
            f"ActivationRecorder and pass it as profile="
        )
    if list(profile.experts) != list(experts):
        raise ValueError(
            f"the profile was recorded for experts {list(profile.experts)}, not for "
            f"{list(experts)}; record it again"
        )
    for name, by_expert in group_by_layer(experts).items():
        layers = by_expert.values()
        expected = {
            "output": max(layer.b.shape[0] for layer in layers),
            "rank": max(layer.rank for layer in layers),
        }
        recorded = {
            "output": profile.output[name].wins.shape[-1] if name in profile.output else None,
            "rank": profile.inner[name].wins.shape[-1] if name in profile.inner else None,
        }
        if recorded != expected:
            raise ValueError(
                f"layer '{name}': the experts have units {expected}, but the profile {recorded}; "
                f"record it again"
            )
