"""Hooks of the project: what it does around Kedro's runs.

Every command imports them, and only runs use them: what they need they import when called.
"""

from safetydpo_kedro.hooks.freshness import FreshnessHooks
from safetydpo_kedro.hooks.locks import LockHooks
from safetydpo_kedro.hooks.parameters import ParameterHooks
from safetydpo_kedro.hooks.progress import ProgressHooks
from safetydpo_kedro.hooks.summary import SummaryHooks
from safetydpo_kedro.hooks.threads import ThreadHooks
from safetydpo_kedro.hooks.tracking import TrackingHooks

__all__ = [
    "FreshnessHooks",
    "LockHooks",
    "ParameterHooks",
    "ProgressHooks",
    "SummaryHooks",
    "ThreadHooks",
    "TrackingHooks",
]
