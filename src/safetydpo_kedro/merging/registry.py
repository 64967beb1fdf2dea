"""Merging strategies by name, behind one signature."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.compress import cast_layer, common_dtype, truncate_layer
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.experts import check_experts, delta_shape, group_by_layer
from safetydpo_kedro.merging.fitted import FittedWeights
from safetydpo_kedro.merging.profile import ActivationProfile
from safetydpo_kedro.validation import validate_nested

MergedLayers = Iterator[tuple[str, LoraLayer]]
Config = TypeVar("Config", bound=StrategyConfig)
Evidence = ParamSpec("Evidence")
MergeFunction = Callable[Concatenate[dict[str, LoraAdapter], Config, Evidence], MergedLayers]
Needs = Literal["profile", "fitted"] | None


class MergeResult(NamedTuple):
    """A merged adapter and how far it is from the exact merge.

    Attributes:
        adapter: one LoRA.
        relative_error: layer name → ``‖ΔW − ΔW_exact‖_F / ‖ΔW_exact‖_F``, 0 where exact.
    """

    adapter: LoraAdapter
    relative_error: dict[str, float]


@dataclass(frozen=True)
class Strategy:
    """One way to merge.

    Attributes:
        function: (experts sorted by name and weighted, configuration) → name and exact merged
            layer, one layer at a time, at strength 1. What all strategies share is done by
            :func:`merge`, as each layer comes.
        config: class of its configuration.
        needs: what it needs to know of exactly these experts beside their factors, and gets as
            a third argument: an activation profile, fitted weights, or nothing.
    """

    function: MergeFunction[Any, ...]
    config: type[StrategyConfig]
    needs: Needs


_STRATEGIES: dict[str, Strategy] = {}


def register(
    name: str, config: type[Config], needs: Needs = None
) -> Callable[[MergeFunction[Config, Evidence]], MergeFunction[Config, Evidence]]:
    """Make a function a strategy; it must live in a module of ``merging/strategies/``.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(
        function: MergeFunction[Config, Evidence],
    ) -> MergeFunction[Config, Evidence]:
        if name in _STRATEGIES:
            raise ValueError(f"merge strategy '{name}' is registered twice, choose another name")
        _STRATEGIES[name] = Strategy(function, config, needs)
        return function

    return decorate


def available_strategies() -> list[str]:
    """Names that :func:`merge` takes, sorted."""
    return sorted(_STRATEGIES)


def find_strategy(strategy: str) -> Strategy:
    """Function, settings and needs of a strategy.

    Raises:
        ValueError: there is no such strategy.
    """
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"unknown merge strategy '{strategy}', expected one of {available_strategies()}"
        )
    return _STRATEGIES[strategy]


def parse_config(strategy: str, config: Mapping[str, Any] | StrategyConfig) -> StrategyConfig:
    """Check a strategy's configuration, so that a typo shows before hours of training.

    Raises:
        ValueError: the strategy, a key or a value is not one it knows.
    """
    expected = find_strategy(strategy).config
    if isinstance(config, expected):
        return config
    values = config.model_dump() if isinstance(config, StrategyConfig) else dict(config)
    return validate_nested(expected, values, f"configuration of merge strategy '{strategy}'")


def merge(
    strategy: str,
    experts: Mapping[str, LoraAdapter],
    config: Mapping[str, Any] | StrategyConfig | None = None,
    profile: ActivationProfile | None = None,
    fitted: FittedWeights | None = None,
) -> MergeResult:
    """Merge experts into one LoRA.

    Args:
        strategy: a name in :func:`available_strategies`.
        experts: expert name → adapter; ranks, scales and adapted layers may differ. The order
            does not matter.
        config: the strategy's configuration, see its config class; None means all defaults.
        profile: activation profile of these experts, for strategies that need one.
        fitted: fitted weights of these experts, for strategies that need them.

    Returns:
        The adapter, in the experts' dtype, with strategy, configuration and expert names in its
        metadata; and the relative error of each layer: of the cut to ``config.rank_limit``, zero
        where the exact merge has no larger rank.

    Raises:
        ValueError: unknown strategy or setting, experts that do not fit together, weights that
            name other experts, or a profile (or fitted weights) that is missing or was made of
            other experts.
    """
    config = parse_config(strategy, config or {})
    experts = check_experts(experts)
    weights = dict.fromkeys(experts, 1.0) if config.weights is None else config.weights
    if set(weights) != set(experts):
        raise ValueError(
            f"{strategy}: weights for {sorted(weights)}, but the experts are "
            f"{sorted(experts)}; give one weight for each"
        )
    evidence: list[ActivationProfile | FittedWeights] = []
    found = find_strategy(strategy)
    if found.needs == "profile":
        evidence = [_checked_profile(strategy, experts, profile)]
    elif found.needs == "fitted":
        evidence = [_checked_weights(strategy, experts, fitted)]
    weighted = {name: adapter.scaled(weights[name]) for name, adapter in experts.items()}
    by_layer = group_by_layer(experts)
    layers, errors = {}, {}
    for name, exact in found.function(weighted, config, *evidence):
        sources = list(by_layer[name].values())
        layers[name], errors[name] = _finish(exact, sources, config)
        del exact  # it may be dense, and must not wait while the next one is made
    metadata = {
        "merge_strategy": strategy,
        "merge_config": json.dumps(config.model_dump(), sort_keys=True),
        "merge_experts": json.dumps(list(experts)),
    }
    return MergeResult(LoraAdapter(layers, metadata), errors)


def layer_by_layer(
    experts: Mapping[str, LoraAdapter], config: StrategyConfig
) -> Iterator[tuple[str, dict[str, LoraLayer]]]:
    """What a strategy works through: one layer after the other, in the configured precision.

    Yields:
        Layer name, and expert name → factors of the experts that adapt it. Only the factors of
        the current layer are held in the wider dtype.
    """
    for name, by_expert in group_by_layer(experts).items():
        yield name, {expert: cast_layer(layer, config.dtype) for expert, layer in by_expert.items()}


def _finish(
    exact: LoraLayer, sources: list[LoraLayer], config: StrategyConfig
) -> tuple[LoraLayer, float]:
    """Apply strength, rank and the experts' dtype to an exact merged layer."""
    scaled = replace(exact, scale=exact.scale * config.strength)
    limit = config.rank_limit([layer.rank for layer in sources])
    cut, error = truncate_layer(scaled, limit, config.dtype)
    return cast_layer(cut, common_dtype(sources)), error


def _checked_profile(
    strategy: str, experts: Mapping[str, LoraAdapter], profile: ActivationProfile | None
) -> ActivationProfile:
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
    return profile


def _checked_weights(
    strategy: str, experts: Mapping[str, LoraAdapter], fitted: FittedWeights | None
) -> FittedWeights:
    """Refuse fitted weights that do not belong to these experts."""
    if fitted is None:
        raise ValueError(
            f"merge strategy '{strategy}' needs fitted weights; fit them with fit_weights and "
            f"pass them as fitted="
        )
    if list(fitted.experts) != list(experts):
        raise ValueError(
            f"the weights were fitted for experts {list(fitted.experts)}, not for "
            f"{list(experts)}; fit them again"
        )
    for name, by_expert in group_by_layer(experts).items():
        expected = delta_shape(next(iter(by_expert.values())))
        sides = (fitted.rows.get(name), fitted.columns.get(name))
        found = tuple(0 if side is None else side.shape[1] for side in sides)
        if found != expected:
            raise ValueError(
                f"layer '{name}': ΔW has shape {expected}, but weights were fitted for {found}; "
                f"fit them again"
            )
    return fitted
