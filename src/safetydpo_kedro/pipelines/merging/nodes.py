"""Nodes of ``merging``: thin wrappers of the ``merging`` package."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.datasets.sharded import plan_shards
from safetydpo_kedro.pipelines.merging.parameters import (
    CoMergeParameters,
    FittedCoMergeParameters,
    FittingParameters,
    LinearParameters,
    ProfileParameters,
    StrategyParameters,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = Figure = LoraAdapter = Tensor = object


def record_activation_profile(
    base_model: DiffusionModel,
    latent_cache: dict[str, Tensor],
    train_pairs: pd.DataFrame,
    preservation_cache: dict[str, Tensor],
    parameters: ProfileParameters,
    **experts: LoraAdapter,
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Run the base model on calibration inputs and see which expert would act, and where.

    Args:
        base_model: the model that the experts were trained on.
        latent_cache: posteriors and embeddings of all pairs.
        train_pairs: one row per pair, in the order of the cache.
        preservation_cache: posteriors and embeddings of neutral images.
        parameters: which calibration inputs, and how many make a shard.
        experts: expert name → adapter.

    Returns:
        Shards: profiles of some inputs each.
    """
    from safetydpo_kedro.merging.calibration import Calibration
    from safetydpo_kedro.merging.profile_parts import to_shard
    from safetydpo_kedro.preference.latents import CachedPrompts

    calibration = Calibration(
        parameters.calibration,
        CachedPrompts.from_tensors(latent_cache, train_pairs, preservation_cache),
    )

    def record(rows: slice) -> dict[str, Tensor]:
        return to_shard(calibration.record(base_model, experts, rows))

    return plan_shards(len(calibration), parameters.shard_size, record)


def add_up_activation_profile(
    activation_profile_shards: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The profile of all calibration inputs, as tensors and header."""
    from safetydpo_kedro.merging.profile_parts import from_shards

    return from_shards(activation_profile_shards).to_tensors()


def summarise_ownership(
    activation_profile: tuple[dict[str, Tensor], dict[str, Any]], parameters: CoMergeParameters
) -> tuple[pd.DataFrame, pd.DataFrame, Figure, Figure, Figure]:
    """Which expert owns and wins how much of each layer, and how clearly.

    Returns:
        The table of layers and experts; the concentration of wins; heat maps of the owned units
        and of the wins; a histogram of both tables.
    """
    from safetydpo_kedro.merging import parse_config
    from safetydpo_kedro.merging.ownership_tables import ownership_shares, win_concentration
    from safetydpo_kedro.merging.profile import ActivationProfile
    from safetydpo_kedro.reporting.merging_figures import ownership_histogram_figure, share_heatmap

    profile = ActivationProfile.from_tensors(*activation_profile)
    config = parse_config("co_merge", parameters.root)
    table, concentration = ownership_shares(profile, config), win_concentration(profile, config)
    return (
        table,
        concentration,
        share_heatmap(table, "owned", "Share of units merged from each expert, by layer"),
        share_heatmap(table, "wins", "Share of activations each expert wins, by layer"),
        ownership_histogram_figure(table, concentration),
    )


def fit_merge_weights(
    base_model: DiffusionModel,
    latent_cache: dict[str, Tensor],
    train_pairs: pd.DataFrame,
    preservation_cache: dict[str, Tensor],
    parameters: FittingParameters,
    **experts: LoraAdapter,
) -> tuple[tuple[dict[str, Tensor], dict[str, Any]], pd.DataFrame, Figure]:
    """Fit how much of each expert's rows and columns enters the merge.

    Args:
        base_model: the model that the experts were trained on.
        latent_cache: posteriors and embeddings of all pairs.
        train_pairs: one row per pair, in the order of the cache.
        preservation_cache: posteriors and embeddings of neutral images.
        parameters: inputs, and how to fit.
        experts: category → its expert.

    Returns:
        The weights as tensors with their header, the history, and its curves.
    """
    from safetydpo_kedro.merging.fitting import fit_weights
    from safetydpo_kedro.merging.fitting_data import fitting_data
    from safetydpo_kedro.preference.latents import CachedPrompts
    from safetydpo_kedro.reporting.figures import training_history_figure

    data = fitting_data(
        base_model,
        experts,
        CachedPrompts.from_tensors(latent_cache, train_pairs, preservation_cache),
        inputs=parameters.inputs,
        batch_size=parameters.config.batch_size,
        seed=parameters.config.seed,
    )
    weights, history = fit_weights(base_model, experts, data, parameters.config)
    panels = {
        "loss": ("loss",),
        "distance to the experts, unsafe prompts": ("unsafe_error",),
        "distance to the base model, other prompts": ("preserved_error",),
    }
    curves = training_history_figure({"fit": history}, panels, "Fitting the merge")
    return weights.to_tensors(), history, curves


def merge_linear(parameters: LinearParameters, **experts: LoraAdapter) -> LoraAdapter:
    """The mean of the experts, the baseline of Co-Merge."""
    return _merge(parameters, experts)


def merge_co_merge(
    activation_profile: tuple[dict[str, Tensor], dict[str, Any]],
    parameters: CoMergeParameters,
    **experts: LoraAdapter,
) -> LoraAdapter:
    """Co-Merge: each unit comes from the expert that is most active there."""
    return _merge(parameters, experts, activation_profile)


def merge_fitted_co_merge(
    fitted_weights: tuple[dict[str, Tensor], dict[str, Any]],
    parameters: FittedCoMergeParameters,
    **experts: LoraAdapter,
) -> LoraAdapter:
    """Co-Merge with fitted weights of rows and columns."""
    return _merge(parameters, experts, fitted=fitted_weights)


def report_merges(**merges: LoraAdapter) -> pd.DataFrame:
    """What merging cost.

    Args:
        merges: strategy → merged adapter.

    Returns:
        One row per strategy and layer: ``strategy, layer, rank, relative_error`` (Frobenius norm
        of what truncation to the rank left out, relative to the exact merge) and ``norm``
        (Frobenius norm of the merged ``ΔW``).
    """
    rows = []
    for strategy, adapter in merges.items():
        errors = json.loads(adapter.metadata["merge_relative_error"])
        for name, layer in adapter.layers.items():
            rows.append(
                {
                    "strategy": strategy,
                    "layer": name,
                    "rank": layer.rank,
                    "relative_error": errors[name],
                    "norm": float(layer.delta().norm()),
                }
            )
    return pd.DataFrame(rows)


def _merge(
    parameters: StrategyParameters,
    experts: dict[str, LoraAdapter],
    profile: tuple[dict[str, Tensor], dict[str, Any]] | None = None,
    fitted: tuple[dict[str, Tensor], dict[str, Any]] | None = None,
) -> LoraAdapter:
    """Merge, and note in the adapter how far each layer is from the exact merge."""
    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.merging import ActivationProfile, FittedWeights, merge

    known = profile and ActivationProfile.from_tensors(*profile)
    if known and set(known.experts) == set(experts):  # others are refused by merge
        known.check_made_of(experts)
    result = merge(
        parameters.strategy,
        experts,
        parameters.root,
        known,
        fitted and FittedWeights.from_tensors(*fitted),
    )
    errors = json.dumps(result.relative_error, sort_keys=True)
    metadata = {**result.adapter.metadata, "merge_relative_error": errors}
    return LoraAdapter(result.adapter.layers, metadata)
