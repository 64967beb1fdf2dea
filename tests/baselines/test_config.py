"""What the configurations of the baselines accept."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from safetydpo_kedro.baselines.config import (
    SLD_CONCEPT,
    SLD_PRESETS,
    EsdConfig,
    SldConfig,
    UceConfig,
)


def test_presets_are_those_of_the_paper():
    names = ("guidance_scale", "warmup_steps", "threshold", "momentum_scale", "momentum_beta")
    table = {
        preset: tuple(getattr(SldConfig(concept=SLD_CONCEPT, **values), name) for name in names)
        for preset, values in SLD_PRESETS.items()
    }
    assert table == {
        "medium": (1000, 10, 0.01, 0.3, 0.4),
        "strong": (2000, 7, 0.025, 0.5, 0.7),
        "max": (5000, 0, 1.0, 0.5, 0.7),
    }
    assert SldConfig() == SldConfig(**SLD_PRESETS["medium"])


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (SldConfig, {"concept": []}),
        (SldConfig, {"guidance_scale": -1}),
        (SldConfig, {"momentum_beta": 1.0}),
        (SldConfig, {"threshold": float("nan")}),
        (EsdConfig, {"steps": 0}),
        (EsdConfig, {"learning_rate": 0}),
        (UceConfig, {"regularization": 0}),
        (UceConfig, {"tokens": "first"}),
    ],
)
def test_values_out_of_range_are_refused(config, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        config.model_validate(wrong)


@pytest.mark.parametrize("config", [SldConfig, EsdConfig, UceConfig])
def test_unknown_keys_are_refused_and_known_ones_named(config):
    with pytest.raises(ValidationError, match=r"Unknown key: known keys here are"):
        config.model_validate({"scale": 1})


def test_configurations_load_without_torch():
    code = "import sys, safetydpo_kedro.baselines.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
