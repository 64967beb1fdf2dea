"""Merging LoRA experts into one adapter: activation profile, Co-Merge, and its rivals.

>>> from safetydpo_kedro.merging import available_strategies
>>> "co_merge" in available_strategies()
True
"""

from safetydpo_kedro.merging import strategies  # registers every strategy
from safetydpo_kedro.merging.config import StrategyConfig
from safetydpo_kedro.merging.fitted import FittedWeights
from safetydpo_kedro.merging.profile import ActivationProfile, UnitStatistics
from safetydpo_kedro.merging.recorder import ActivationRecorder
from safetydpo_kedro.merging.registry import (
    MergeResult,
    available_strategies,
    find_strategy,
    merge,
    parse_config,
    register,
)

__all__ = [
    "ActivationProfile",
    "ActivationRecorder",
    "FittedWeights",
    "MergeResult",
    "StrategyConfig",
    "UnitStatistics",
    "available_strategies",
    "find_strategy",
    "merge",
    "parse_config",
    "register",
    "strategies",
]
