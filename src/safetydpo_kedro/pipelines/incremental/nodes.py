"""Nodes of ``incremental``: thin wrappers of the ``merging`` package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.pipelines.merging.parameters import FittingParameters

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = LoraAdapter = Tensor = object


def extend_merge(
    base_model: DiffusionModel,
    existing_merge: LoraAdapter,
    added_expert: LoraAdapter,
    latent_cache: dict[str, Tensor],
    train_pairs: pd.DataFrame,
    preservation_cache: dict[str, Tensor],
    parameters: FittingParameters,
) -> tuple[LoraAdapter, pd.DataFrame]:
    """Add an expert to a merge; neither the merge nor its experts are trained again.

    Args:
        base_model: the model that both were made for.
        existing_merge: stays as it is.
        added_expert: its weights are fitted.
        latent_cache: posteriors and embeddings of all pairs.
        train_pairs: one row per pair, in the order of the cache.
        preservation_cache: posteriors and embeddings of neutral images.
        parameters: inputs, and how to fit.

    Returns:
        The merge with the expert in it, and the history of the fit.
    """
    from safetydpo_kedro.merging.incremental import extend_merge
    from safetydpo_kedro.preference.latents import CachedPrompts

    return extend_merge(
        base_model,
        existing_merge,
        added_expert,
        CachedPrompts.from_tensors(latent_cache, train_pairs, preservation_cache),
        parameters.config,
        parameters.inputs,
    )
