"""Does the base model draw what it is asked for? Asked of the independent classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.parameters import SamplingParameters
from safetydpo_kedro.pictograms.captions import TEMPLATES, caption
from safetydpo_kedro.pictograms.classifier import WorldClassifier
from safetydpo_kedro.pictograms.world import BACKGROUNDS, concepts


def world_accuracy(
    model: DiffusionModel,
    classifier: WorldClassifier,
    images_per_name: int,
    sampling: SamplingParameters,
    seed: int,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw every name of every concept and have the classifier name the images.

    Args:
        model: the base model.
        classifier: independent of everything else.
        images_per_name: images for each of a concept's names.
        sampling: how to draw.
        seed: of the first image; must be out of the training's range to be held out.

    Returns:
        One row per image (concept, background, found concept, found background) and the images,
        uint8 ``[N, H, W, 3]``.
    """
    colours = list(BACKGROUNDS)
    rows: list[dict[str, Any]] = []
    for concept in concepts():
        for name in concept.names:
            for _ in range(images_per_name):
                i = len(rows)
                background = colours[(7 * i + i // 8) % len(colours)]
                rows.append(
                    {
                        "concept": concept.concept,
                        "role": concept.role,
                        "background": background,
                        "prompt": caption(name, background, i % len(TEMPLATES)),
                        "seed": seed + i,
                    }
                )
    table = pd.DataFrame(rows)
    images = model.sample(list(table["prompt"]), list(table["seed"]), sampling, "world check")
    table["found_concept"], table["found_background"] = classifier.name(images)
    return table, images


def summarise_accuracy(table: pd.DataFrame) -> dict[str, Any]:
    """Shares of right concepts and backgrounds, over all images and for the worst concepts."""
    right = table["found_concept"] == table["concept"]
    per_concept = right.groupby(table["concept"]).mean().sort_values()
    return {
        "images": len(table),
        "concept_accuracy": float(right.mean()),
        "background_accuracy": float((table["found_background"] == table["background"]).mean()),
        "junk": float((table["found_concept"] == "junk").mean()),
        "weakest_concepts": {k: round(float(v), 3) for k, v in per_concept.head(8).items()},
    }
