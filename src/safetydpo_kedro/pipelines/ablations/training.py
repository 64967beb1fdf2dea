"""Nodes of ``ablations`` that train: the experts of the default run, with one thing changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd
from omegaconf import OmegaConf
from pydantic import BaseModel

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.pipelines.expert_training.nodes import train_safety_expert
from safetydpo_kedro.validation import validate_nested

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = LoraAdapter = Tensor = object

Model = TypeVar("Model", bound=BaseModel)


def train_varied_expert(
    model: DiffusionModel,
    train_pairs: pd.DataFrame,
    latent_cache: dict[str, Tensor],
    preservation_cache: dict[str, Tensor],
    reference_scores: dict[str, Tensor],
    categories: list[str],
    noise: NoiseParameters,
    parameters: ExpertTrainingParameters,
    changes: dict[str, Any],
    seed: int,
) -> Iterator[LoraAdapter]:
    """Train an expert as ``expert_training`` does, but for some changes, and from another seed.

    Nothing is held out, because nobody looks. Noise repeats with the seed of the run if the
    reference's errors are scored, and is the seed's own otherwise.

    Args:
        model: the model that is to be aligned.
        train_pairs: one row per pair, in the order of the cache.
        latent_cache: posteriors and embeddings of all pairs.
        preservation_cache: the same of neutral images.
        reference_scores: the base model's errors on all pairs.
        categories: the categories that the expert is to forget.
        noise: draws and caption dropout.
        parameters: of the training.
        changes: what differs from them.
        seed: of the adapter, the order of pairs and the noise.

    Yields:
        The expert.
    """
    alone = {"seed": seed, "validation": {"every": None}}
    varied = changed(parameters, {**changes, **alone}, "changes of an expert of the ablations")
    with own_checkpoints(varied, parameters, fingerprint(varied)[:16]) as training:
        for expert, _, _ in train_safety_expert(
            model,
            train_pairs,
            latent_cache,
            preservation_cache,
            reference_scores,
            None,
            categories,
            seeded(noise, seed),
            training,
        ):
            yield expert


@contextmanager
def own_checkpoints(
    varied: ExpertTrainingParameters, parameters: ExpertTrainingParameters, name: str
) -> Iterator[ExpertTrainingParameters]:
    """Train as ``varied`` says, on the machine that ``parameters`` describe.

    Checkpoints lie in a folder of the name, which goes with the block if nothing is left in it.
    Experts of other categories, which may be in training beside this one, share it.

    Args:
        varied: what the result depends on.
        parameters: where checkpoints lie, and how many processes share a batch.
        name: of the folder, below ``ablations``.
    """
    folder = parameters.checkpoints.directory / "ablations" / name
    checkpoints = parameters.checkpoints.model_copy(update={"directory": folder})
    yield varied.model_copy(
        update={"checkpoints": checkpoints, "num_processes": parameters.num_processes}
    )
    with suppress(OSError):
        folder.rmdir()


def seeded(noise: NoiseParameters, seed: int) -> NoiseParameters:
    """The seed's own noise, unless a bound on the draws lets the run's repeat."""
    return noise.model_copy(update={"seed": seed}) if noise.draws is None else noise


def changed(parameters: Model, changes: dict[str, Any], what: str) -> Model:
    """Parameters with some of them, however deep, replaced.

    Args:
        parameters: as they are.
        changes: name → value, or a mapping of what changes inside.
        what: is named before an error.

    Raises:
        ValueError: a change is not of a parameter that there is, or not to a value it takes.
    """
    merged = OmegaConf.merge(parameters.model_dump(mode="json"), changes)
    return validate_nested(type(parameters), OmegaConf.to_container(merged), what)
