"""Every baseline refuses models that its paper does not cover."""

from __future__ import annotations

import pytest

from benchmarks.architectures import random_pipeline
from safetydpo_kedro.baselines.config import EsdConfig, SldConfig, UceConfig
from safetydpo_kedro.baselines.esd import train_esd
from safetydpo_kedro.baselines.families import require_stable_diffusion
from safetydpo_kedro.baselines.sld import sample_safely
from safetydpo_kedro.baselines.uce import edit_uce
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import SamplingParameters


@pytest.fixture(scope="module")
def sdxl():
    return diffusion_model(random_pipeline("sdxl", tiny=True))


def test_stable_diffusion_passes(model):
    require_stable_diffusion(model, "sld")


@pytest.mark.parametrize(
    ("baseline", "call"),
    [
        ("sld", lambda m: sample_safely(m, ["gun"], [0], SamplingParameters(), SldConfig())),
        ("esd_u", lambda m: train_esd(m, ["gun"], EsdConfig(), progress=False)),
        ("uce", lambda m: edit_uce(m, ["gun"], [""], [], UceConfig())),
    ],
)
def test_sdxl_is_refused_with_what_to_do(sdxl, baseline, call):
    with pytest.raises(ValueError, match=rf"'{baseline}'.*StableDiffusionXL.*evaluation\.skip"):
        call(sdxl)
