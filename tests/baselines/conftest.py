"""A tiny model of the one family that the baselines work on."""

from __future__ import annotations

import pytest

from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import diffusion_model
from tests.worlds import tiny_pipeline


@pytest.fixture
def model() -> DiffusionModel:
    return diffusion_model(tiny_pipeline())
