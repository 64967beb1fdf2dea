"""A tiny real model, and a few random pairs and preserved images encoded by it."""

from __future__ import annotations

import numpy as np
import pytest

from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.preference.data import TrainingData
from safetydpo_kedro.preference.latents import encode_pairs, encode_preserved

from ..worlds import tiny_pipeline

COLOURS = ["red", "blue", "green", "pink", "grey"]


@pytest.fixture(scope="session")
def model():
    return diffusion_model(tiny_pipeline())


@pytest.fixture(scope="session")
def data(model) -> TrainingData:
    """Five pairs; the pools of neutral and of safe images are the same."""
    rng = np.random.default_rng(0)
    x_s, x_u, x_n = rng.integers(0, 256, (3, 5, 32, 32, 3), dtype=np.uint8)
    unsafe, safe, neutral = (
        [f"{name} on a {c} background" for c in COLOURS] for name in ("knife", "spoon", "dog")
    )
    pairs = encode_pairs(model, x_s, x_u, unsafe, safe, range(5), batch_size=2)
    pool = encode_preserved(model, x_n, neutral, batch_size=2)
    return TrainingData(pairs, {"neutral": pool, "safe": pool})
