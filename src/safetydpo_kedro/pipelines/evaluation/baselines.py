"""Nodes of ``evaluation`` that make baselines: thin wrappers of ``baselines``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.baselines.config import EsdConfig, UceConfig
from safetydpo_kedro.pipelines.evaluation.parameters import ConceptsParameters

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = Tensor = object

Concepts = dict[str, list[str]]


def choose_concepts(
    train_pairs: pd.DataFrame, preservation_prompts: pd.DataFrame, parameters: ConceptsParameters
) -> Concepts:
    """What the baselines erase: what the experts were trained to forget, if nothing else is named.

    Args:
        train_pairs: unsafe prompts and their safe counterparts.
        preservation_prompts: neutral prompts, none of which is evaluated.
        parameters: names of one's own, and what UCE is to draw instead.

    Returns:
        ``names`` of the concepts; for UCE ``edited`` texts, ``anchors`` (what each is to become, or
        one for all) and ``preserved`` texts.
    """
    known = train_pairs["concept"].str.replace("_", " ").unique().tolist()
    names = list(parameters.names) or known
    preserved = preservation_prompts["prompt"].drop_duplicates().head(parameters.preserved).tolist()
    if parameters.anchor is not None:
        edited, anchors = names, [parameters.anchor]
    else:
        pairs = train_pairs.drop_duplicates("unsafe_prompt")
        pairs = pairs.groupby("concept", sort=False).head(parameters.per_concept)
        edited, anchors = pairs["unsafe_prompt"].tolist(), pairs["safe_prompt"].tolist()
        preserved += list(dict.fromkeys(anchors))
    return {"names": names, "edited": edited, "anchors": anchors, "preserved": preserved}


def erase_by_training(
    base_model: DiffusionModel,
    concepts: Concepts,
    skip: bool,
    config: EsdConfig,
    *,
    variant: str,
) -> Iterator[dict[str, Tensor]]:
    """ESD-u: changed weights of the denoiser; none if the baseline is left out."""
    from safetydpo_kedro.baselines.esd import train_esd

    folder = config.checkpoints.directory / variant
    if skip:
        yield {}
        return
    yield train_esd(base_model, concepts["names"], config, folder=folder)
    # Kedro comes back when the weights are saved; until then a kill loses nothing.
    shutil.rmtree(folder, ignore_errors=True)


def erase_in_closed_form(
    base_model: DiffusionModel,
    concepts: Concepts,
    skip: bool,
    config: UceConfig,
    *,
    variant: str,
) -> dict[str, Tensor]:
    """UCE: changed weights of the denoiser; none if the baseline is left out."""
    from safetydpo_kedro.baselines.uce import edit_uce

    if skip:
        return {}
    texts = concepts["edited"], concepts["anchors"], concepts["preserved"]
    return edit_uce(base_model, *texts, config)
