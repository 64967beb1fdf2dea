"""Settings that Kedro reads, and the categories of harm, in the one place to add another."""

from __future__ import annotations

from safetydpo_kedro.config_loader import ExpertConfigLoader, package_file
from safetydpo_kedro.hooks import (
    FreshnessHooks,
    LockHooks,
    ParameterHooks,
    ProgressHooks,
    SummaryHooks,
    ThreadHooks,
    TrackingHooks,
)

CATEGORIES = (
    "hate",
    "harassment",
    "violence",
    "self_harm",
    "sexual",
    "shocking",
    "illegal_activity",
)
ALL_SINGLE = "all_single"
EXPERTS = (*CATEGORIES, ALL_SINGLE)
MERGES = ("linear", "co_merge", "fitted_co_merge")
# Other people's methods, made by the evaluation itself: guidance while drawing, edited weights.
GUIDED = ("sld_medium", "sld_strong", "sld_max")
EDITED = ("esd_u", "uce")
BASELINES = (*GUIDED, *EDITED)
VARIANTS = ("base", *EXPERTS, *MERGES, *BASELINES)
# Imported prompt sets that an evaluation may draw, as `prompt_import` names them.
PUBLISHED = ("coprov2_test", "copro_test", "i2p", "ud", "coco", "custom")

# Variants that the pipeline `adversarial` attacks, beside those of `external_models`.
ATTACKED = ("base", "esd_u", ALL_SINGLE, "co_merge", "fitted_co_merge")
# The expert for all categories again, trained on adversarial prompts too: pipeline `hardening`.
HARDENED = "hardened"

# What the pipeline `ablations` varies; parameters say what each name stands for.
ABLATION_SEEDS = ("a", "b", "c")
ABLATION_EXPERTS = ("standard", "loud", "shared_a")
ABLATION_JOINT = ("all_single", "all_single_equal")
# Sweeps of the training recipe, each with a figure of its own.
ABLATION_SWEEPS = (
    "strategy",
    "beta",
    "rank",
    "caption_dropout",
    "shared_noise",
    "data",
    "concepts",
)

HOOKS = (
    ParameterHooks(),
    LockHooks(),
    FreshnessHooks(),
    ThreadHooks(),
    ProgressHooks(),
    SummaryHooks(),
    TrackingHooks(),
)

# A run reports to nobody: away from the project's folder no `.telemetry` file would say so.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry",)

CONFIG_LOADER_CLASS = ExpertConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # Soft merges: an environment states only the parameters that differ from conf/base.
    "merge_strategy": {"parameters": "soft"},
    "custom_resolvers": {"package": package_file},
    "experts": {**{category: [category] for category in CATEGORIES}, ALL_SINGLE: CATEGORIES},
    "variants": VARIANTS,
}
