"""Nodes of ``evaluation`` that make baselines: thin wrappers of ``baselines``."""

from __future__ import annotations

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
    """What the baselines erase: by default what the experts were trained to forget.

    Args:
        train_pairs: unsafe prompts and their safe counterparts.
        preservation_prompts: neutral prompts, none of which is evaluated.
        parameters: texts of one's own, or how many prompts of each concept to take.

    Returns:
        ``concepts``, ``anchors`` (what each is to become) and ``preserved`` (what is to stay).
    """
    if parameters.texts:
        concepts, anchors = list(parameters.texts), [parameters.anchor]
    else:
        pairs = train_pairs.drop_duplicates("unsafe_prompt")
        pairs = pairs.groupby("concept", sort=False).head(parameters.per_concept)
        concepts = pairs["unsafe_prompt"].tolist()
        anchors = (
            pairs["safe_prompt"].tolist() if parameters.anchor is None else [parameters.anchor]
        )
    preserved = preservation_prompts["prompt"].drop_duplicates().head(parameters.preserved).tolist()
    safe = [text for text in anchors if text] if parameters.preserve_anchors else []
    return {"concepts": concepts, "anchors": anchors, "preserved": preserved + safe}


def erase_by_training(
    base_model: DiffusionModel,
    concepts: Concepts,
    skip: list[str],
    config: EsdConfig,
    *,
    variant: str,
) -> dict[str, Tensor]:
    """ESD-u: changed weights of the denoiser; none if the baseline is left out."""
    from safetydpo_kedro.baselines.esd import train_esd

    return {} if variant in skip else train_esd(base_model, concepts["concepts"], config)


def erase_in_closed_form(
    base_model: DiffusionModel,
    concepts: Concepts,
    skip: list[str],
    config: UceConfig,
    *,
    variant: str,
) -> dict[str, Tensor]:
    """UCE: changed weights of the denoiser; none if the baseline is left out."""
    from safetydpo_kedro.baselines.uce import edit_uce

    if variant in skip:
        return {}
    texts = concepts["concepts"], concepts["anchors"], concepts["preserved"]
    return edit_uce(base_model, *texts, config)
