"""Nodes of ``expert_training``: thin wrappers of the ``preference`` package."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Chart
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    Chart = DiffusionModel = Figure = LoraAdapter = Tensor = object

logger = logging.getLogger(__name__)

STEP = "step_"  # in front of a step's number, in the names of validation images


def train_safety_expert(
    model: DiffusionModel,
    train_pairs: pd.DataFrame,
    latent_cache: dict[str, Tensor],
    preservation_cache: dict[str, Tensor],
    reference_scores: dict[str, Tensor],
    foundation: LoraAdapter | None,
    categories: list[str],
    noise: NoiseParameters,
    parameters: ExpertTrainingParameters,
    name: str | None = None,
) -> Iterator[tuple[LoraAdapter, pd.DataFrame, tuple[dict[str, Tensor], dict[str, Any]]]]:
    """Train an expert on the pairs of its categories; preserve what belongs to the others.

    Args:
        model: the model that is to be aligned.
        train_pairs: one row per pair, in the order of the cache.
        latent_cache: posteriors and embeddings of all pairs.
        preservation_cache: the same of neutral images.
        reference_scores: the base model's errors on all pairs.
        foundation: an adapter that the expert is trained on top of, if there is one.
        categories: the categories that the expert is to forget.
        noise: draws and caption dropout.
        parameters: of the training.
        name: of the expert; None: its category, or ``all_single``.

    Yields:
        The expert, its training history, and the images drawn on the way with their prompts.
    """
    import shutil

    from safetydpo_kedro.preference.data import expert_data
    from safetydpo_kedro.preference.latents import LatentPairs, PreservedImages
    from safetydpo_kedro.preference.reference_scores import ReferenceScores
    from safetydpo_kedro.preference.trainer import TrainingRun, train_expert
    from safetydpo_kedro.tracking import step_logger

    name = name or (categories[0] if len(categories) == 1 else "all_single")
    scores = ReferenceScores.from_tensors(reference_scores)
    if foundation is not None and scores.draws:
        logger.info("%s is trained on top of another adapter: its reference is not scored", name)
        scores = scores.without_draws()
    data = expert_data(
        train_pairs,
        categories,
        LatentPairs.from_tensors(latent_cache),
        PreservedImages.from_tensors(preservation_cache),
        scores,
        parameters,
    )
    metadata = {
        "expert": name,
        "categories": json.dumps(categories),
        "expert_training": json.dumps(parameters.model_dump(mode="json"), sort_keys=True),
        "noise": json.dumps(noise.model_dump(mode="json"), sort_keys=True),
    }
    folder = parameters.checkpoints.directory / name
    run = TrainingRun(name, data, noise, parameters, folder, metadata, foundation)
    trained = train_expert(model, run, step_logger(name))
    images = {f"{STEP}{step:06d}": drawn for step, drawn in trained.images.items()}
    prompts = list(data.held_out.prompts) if data.held_out else []
    yield trained.adapter, trained.history, (images, {"prompts": prompts})
    # Kedro comes back when all of these are saved; until then a kill loses nothing.
    shutil.rmtree(folder, ignore_errors=True)


def plot_history(history: pd.DataFrame) -> Chart:
    """Curves that tell whether a training went well."""
    from safetydpo_kedro.reporting.figures import training_history_figure

    return training_history_figure({"expert": history})


def plot_validation(
    validation_images: tuple[dict[str, Tensor], dict[str, Any]],
    parameters: ExpertTrainingParameters,
) -> Figure:
    """Held-out unsafe prompts as drawn in the course of the training."""
    from safetydpo_kedro.reporting.grids import progress_grid

    images, header = validation_images
    rows = {
        f"step {int(name.removeprefix(STEP))}": drawn.numpy()
        for name, drawn in sorted(images.items())
    }
    return progress_grid(rows, header["prompts"], parameters.validation.blur)
