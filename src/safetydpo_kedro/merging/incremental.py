"""Adding an expert to a merge that exists, without the experts that it was made of."""

from __future__ import annotations

import json
from typing import NamedTuple

import pandas as pd

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.merging.fitting import FittingConfig, fit_weights
from safetydpo_kedro.merging.fitting_data import fitting_data
from safetydpo_kedro.merging.registry import merge
from safetydpo_kedro.preference.latents import CachedPrompts

EXISTING, ADDED = "existing", "added"


class Extension(NamedTuple):
    """A merge with one more expert in it.

    Attributes:
        adapter: one LoRA; its rank is the sum of the two ranks.
        history: of the fit.
    """

    adapter: LoraAdapter
    history: pd.DataFrame


def extend_merge(
    model: DiffusionModel,
    existing: LoraAdapter,
    expert: LoraAdapter,
    cached: CachedPrompts,
    config: FittingConfig,
    inputs: int,
) -> Extension:
    """Fit the weights of the new expert alone; the existing merge stays as it is, bit for bit.

    ``ΔW = ΔW_existing + diag(rows) ΔW_new diag(columns)``. On unsafe prompts of the new category
    the sum shall answer as the new expert does, on those of the others as the existing merge does,
    and on safe and neutral prompts as the base model does. No other expert is needed.

    Args:
        model: the base model.
        existing: a merge, whose metadata names the categories in it.
        expert: the new expert, whose metadata names its categories.
        cached: pairs of the new categories at least; those of others are preserved.
        config: how to fit.
        inputs: unsafe inputs, split evenly over the categories.

    Raises:
        ValueError: an adapter does not say which categories it is for, or both are for one.
    """
    old, new = _named(existing, "merge_experts"), _named(expert, "categories")
    shared = sorted(set(old) & set(new))
    if shared:
        raise ValueError(
            f"the existing merge was made with an expert for {shared}: an expert is added once; "
            f"merge all experts anew to replace it"
        )
    teachers = {category: existing for category in old if category in set(cached.categories)}
    teachers |= {category: expert for category in new}
    data = fitting_data(
        model,
        teachers,
        cached,
        inputs=inputs,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    both = {EXISTING: existing, ADDED: expert}
    weights, history = fit_weights(model, both, data, config, fixed=[EXISTING])
    merged = merge("fitted_co_merge", both, fitted=weights).adapter
    names = {
        "merge_experts": json.dumps(sorted([*old, *new])),
        "merge_extended_by": json.dumps(new),
    }
    return Extension(LoraAdapter(merged.layers, {**merged.metadata, **names}), history)


def _named(adapter: LoraAdapter, entry: str) -> list[str]:
    """Names of categories in the adapter's metadata."""
    if entry not in adapter.metadata:
        raise ValueError(
            f"the adapter's metadata has no '{entry}', only {sorted(adapter.metadata)}: take a "
            f"file that this project merged or trained"
        )
    names: list[str] = json.loads(adapter.metadata[entry])
    return names
