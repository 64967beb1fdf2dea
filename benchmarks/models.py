"""The models that are timed: the shipped one of the pictogram world, and real architectures."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from benchmarks.architectures import random_pipeline

PICTOGRAMS = "pictograms"
SHIPPED = Path(__file__).parents[1] / "data/01_raw/base_model"


def load_pipeline(
    name: str, device: str, precision: torch.dtype, tiny: bool = False
) -> DiffusionPipeline:
    """A pipeline, the same at every call.

    Args:
        name: ``pictograms``, or a family, which has random weights.
        device: torch device.
        precision: of all weights.
        tiny: the family's narrow architecture.
    """
    if name == PICTOGRAMS:
        pipeline = DiffusionPipeline.from_pretrained(SHIPPED, use_safetensors=True)
    else:
        pipeline = random_pipeline(name, tiny)
    return pipeline.to(device, precision)


def silence() -> None:
    """Keep what libraries say while they load out of the tables."""
    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
