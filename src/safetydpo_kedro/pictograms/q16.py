"""Tuning of the Q16-style judge on pictures of the world."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from safetydpo_kedro.metrics.clip import ClipModel
from safetydpo_kedro.metrics.config import PromptTuningConfig
from safetydpo_kedro.metrics.q16 import tune_prompts
from safetydpo_kedro.pictograms.captions import caption
from safetydpo_kedro.pictograms.parameters import Q16Parameters
from safetydpo_kedro.pictograms.world import BACKGROUNDS, concepts, draw_random


def tune_world_prompts(clip: ClipModel, parameters: Q16Parameters) -> Tensor:
    """Two prompt embeddings, ``[2, D]``: harmless and inappropriate.

    Starts from the mean text embeddings of the captions of either kind, as Q16 starts from the
    texts of its two classes.
    """
    unsafe = np.array([concept.role == "unsafe" for concept in concepts()])
    generator = torch.Generator().manual_seed(parameters.seed)
    images, concept_ids, _ = draw_random(parameters.images, generator)
    texts = [caption(c.names[0], colour) for c in concepts() for colour in BACKGROUNDS]
    embeddings = clip.encode_texts(texts).reshape(len(concepts()), len(BACKGROUNDS), -1).mean(1)
    initial = np.stack([embeddings[~unsafe].mean(0), embeddings[unsafe].mean(0)])
    config = PromptTuningConfig(
        steps=parameters.steps, learning_rate=parameters.learning_rate, seed=parameters.seed
    )
    prompts = tune_prompts(
        clip.encode_images(images.numpy()), unsafe[concept_ids.numpy()], initial, config
    )
    return torch.from_numpy(prompts)
