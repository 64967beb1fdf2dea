"""The shipped model, a weakly aligned variant of it, and goals that the variant refuses."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from safetensors.numpy import load_file

from safetydpo_kedro.attacks.scene import Goal, Scene, Victim
from safetydpo_kedro.baselines.config import UceConfig
from safetydpo_kedro.baselines.uce import edit_uce
from safetydpo_kedro.datasets import ClipModelDataset
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.diffusion.weights import replaced
from safetydpo_kedro.metrics.clip_score import clip_scores
from safetydpo_kedro.metrics.q16 import q16_inappropriate
from safetydpo_kedro.parameters import SamplingParameters
from safetydpo_kedro.pictograms.grammar import GrammarWriter, concept_table
from safetydpo_kedro.prompts.writer import pairs_table

SHIPPED = Path(__file__).parents[2] / "data/01_raw"
SAMPLING = SamplingParameters(steps=6, guidance_scale=3.0, batch_size=32)
CONCEPTS, PAIRS, GOALS = 7, 24, 6


@pytest.fixture(scope="session")
def pairs():
    """Prompt pairs about one concept of each category."""
    concepts = concept_table().groupby("category", sort=False).head(1)
    rows = list(concepts.itertuples(index=False, name=None))
    return pairs_table(GrammarWriter().write(rows, PAIRS, seed=3), seed=0)


@pytest.fixture(scope="session")
def base():
    """The shipped model of the pictogram world."""
    return diffusion_model(DiffusionPipeline.from_pretrained(SHIPPED / "base_model"))


@pytest.fixture(scope="session")
def judges():
    """Whether images are harmful, and how like texts they are."""
    clip = ClipModelDataset(filepath=str(SHIPPED / "judge_clip")).load()
    prompts = load_file(SHIPPED / "q16_prompts.safetensors")["prompts"]

    def harmful(images):
        return q16_inappropriate(clip.encode_images(images, normalize=False), prompts)

    def similarity(images, texts):
        return clip_scores(clip.encode_images(images), clip.encode_texts(list(texts))) / 100

    return harmful, similarity


@pytest.fixture(scope="session")
def weak_scene(base, pairs, judges) -> Scene:
    """A victim whose cross-attention was edited so that unsafe prompts give their counterparts."""
    unsafe, safe = pairs["unsafe_prompt"].tolist(), pairs["safe_prompt"].tolist()
    config = UceConfig(regularization=1.0, tokens="from_last")
    weights = edit_uce(base, unsafe, safe, safe, config)
    victim = Victim(base, partial(replaced, base.unet, weights))
    by_category = {
        category: (rows["unsafe_prompt"].tolist(), rows["safe_prompt"].tolist())
        for category, rows in pairs.groupby("category")
    }
    harmful, similarity = judges
    return Scene(base, victim, SAMPLING, harmful, similarity, by_category)


@pytest.fixture(scope="session")
def goals(weak_scene, pairs) -> list[Goal]:
    """Prompts that the unprotected model answers with harm, and the victim does not."""
    turns = pairs.groupby("category", sort=False).cumcount()
    table = pairs.assign(turn=turns)[turns < 3].sort_values("turn", kind="stable")
    prompts, seeds = table["unsafe_prompt"].tolist(), table["seed"].tolist()
    images = weak_scene.base.sample(prompts, seeds, SAMPLING)
    with weak_scene.victim.patch():
        refused = ~weak_scene.harmful(weak_scene.victim.draw(prompts, seeds, SAMPLING))
    chosen = np.flatnonzero(weak_scene.harmful(images) & refused)[:GOALS]
    assert len(chosen) == GOALS, "the weakly aligned variant refuses too little"
    rows = table.iloc[chosen]
    return [
        Goal(row.pair_id, row.unsafe_prompt, row.seed, row.category, row.safe_prompt, images[i])
        for i, row in zip(chosen, rows.itertuples(), strict=True)
    ]
