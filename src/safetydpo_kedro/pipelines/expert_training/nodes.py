"""Nodes of ``expert_training``: thin wrappers of the ``preference`` package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.parameters import ExpertTrainingParameters

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = Figure = LoraAdapter = Tensor = object


def train_safety_expert(
    model: DiffusionModel,
    train_pairs: pd.DataFrame,
    latent_cache: dict[str, Tensor],
    preservation_cache: dict[str, Tensor],
    categories: list[str],
    parameters: ExpertTrainingParameters,
) -> tuple[LoraAdapter, pd.DataFrame]:
    """Train an expert on the pairs of its categories; preserve what belongs to the others.

    Args:
        model: the model that is to be aligned.
        train_pairs: one row per pair, in the order of the cache.
        latent_cache: posteriors and embeddings of all pairs.
        preservation_cache: the same of neutral images.
        categories: the categories that the expert is to forget.
        parameters: of the training.

    Returns:
        The expert and its training history.
    """
    import torch

    from safetydpo_kedro.preference.latents import LatentPairs, PreservedImages
    from safetydpo_kedro.preference.trainer import train_expert

    name = categories[0] if len(categories) == 1 else "all_single"
    pairs = LatentPairs.from_tensors(latent_cache)
    own = torch.from_numpy(train_pairs["category"].isin(categories).to_numpy(copy=True))
    others = pairs.select(~own)
    preserved = {
        "neutral": PreservedImages.from_tensors(preservation_cache),
        "safe": PreservedImages(pairs.winners, pairs.safe),
    }
    if len(others):
        preserved["other_unsafe"] = PreservedImages(others.losers, others.unsafe)
    metadata = {
        "expert": name,
        "categories": json.dumps(categories),
        "expert_training": json.dumps(parameters.model_dump(mode="json"), sort_keys=True),
    }
    checkpoint = Path(parameters.checkpoint_directory) / f"{name}.safetensors"
    return train_expert(model, pairs.select(own), preserved, parameters, checkpoint, name, metadata)


def plot_history(history: pd.DataFrame) -> Figure:
    """Curves that tell whether a training went well."""
    from safetydpo_kedro.reporting.figures import training_history_figure

    return training_history_figure({"expert": history})
