"""Models of others as a catalog entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from safetydpo_kedro.datasets import DiffusionPipelineDataset, ExternalModelsDataset
from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.lora import random_adapter
from safetydpo_kedro.diffusion.lora_files import save_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import SamplingParameters

from ..worlds import tiny_expert, tiny_pipeline

SAMPLING = SamplingParameters(steps=1, guidance_scale=1.0)
PROMPTS, SEEDS = ["a", "b"], [1, 2]


def test_a_lora_draws_with_the_base_model_and_a_pipeline_by_itself(tmp_path):
    pipeline = tiny_pipeline()
    model = diffusion_model(pipeline)
    adapter = tiny_expert(pipeline.unet, 0).scaled(5.0)
    save_adapter(adapter, tmp_path / "theirs.safetensors")
    other = tiny_pipeline()
    with torch.no_grad():
        other.unet.conv_in.weight.mul_(2)
    DiffusionPipelineDataset(filepath=str(tmp_path / "whole")).save(other)
    dataset = ExternalModelsDataset(
        models={
            "their_lora": {"lora": str(tmp_path / "theirs.safetensors"), "strength": 0.5},
            "whole": {"pipeline": {"filepath": str(tmp_path / "whole")}},
        }
    )
    lora, whole = dataset.load()
    with fused(model.unet, adapter, 0.5):
        expected = model.sample(PROMPTS, SEEDS, SAMPLING)
    drawn = lora.sampler(model)(PROMPTS, SEEDS, SAMPLING)
    np.testing.assert_array_equal(drawn, expected)
    drawn = whole.sampler(model)(PROMPTS, SEEDS, SAMPLING)
    expected = diffusion_model(other).sample(PROMPTS, SEEDS, SAMPLING)
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn != model.sample(PROMPTS, SEEDS, SAMPLING)).any()


def test_identity_follows_content_and_settings_but_not_the_place(tmp_path):
    adapter = tiny_expert(tiny_pipeline().unet, 0)
    for name in ("a", "b"):
        save_adapter(adapter, tmp_path / f"{name}.safetensors")

    def identity(path, **settings):
        models = {"theirs": {"lora": str(tmp_path / path), **settings}}
        return ExternalModelsDataset(models=models).fingerprint_options

    assert identity("a.safetensors") == identity("b.safetensors")
    assert identity("a.safetensors") != identity("a.safetensors", strength=0.5)
    before = identity("a.safetensors")
    save_adapter(adapter.scaled(2.0), tmp_path / "a.safetensors")
    assert identity("a.safetensors") != before


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"a/b": {"lora": "x"}}, "a name consists of letters"),
        ({"a": {}}, "give `lora`"),
        ({"a": {"lora": "x", "pipeline": {"filepath": "y"}}}, "give `lora`"),
        ({"a": {"lora": "x", "strenght": 1}}, "strenght"),
        ({"a": {"pipeline": {"filepath": "y"}, "strength": 1}}, "has no `strength`"),
    ],
)
def test_a_wrong_entry_is_one_clear_error(models, message):
    with pytest.raises(ValueError, match=message):
        ExternalModelsDataset(models=models)


@pytest.mark.parametrize("entry", [{"lora": "nowhere"}, {"pipeline": {"filepath": "nowhere"}}])
def test_a_missing_file_is_named_with_its_model_before_anything_is_drawn(entry):
    dataset = ExternalModelsDataset(models={"theirs": entry})
    with pytest.raises(DatasetError, match=r"external model 'theirs'.*nowhere"):
        dataset.load()
    with pytest.raises(DatasetError, match=r"external model 'theirs'.*nowhere"):
        _ = dataset.fingerprint_options  # as at the start of a run
    assert ExternalModelsDataset().load() == []


def test_a_lora_of_another_base_model_is_named(tmp_path):
    """Among several models a message about layers alone would not say whose they are."""
    pipeline = tiny_pipeline()
    names = [n for n, _ in pipeline.unet.named_modules() if n.endswith("attn1.to_q")]
    alien = random_adapter({names[0]: (320, 320)}, 2, torch.Generator().manual_seed(0))
    save_adapter(alien, tmp_path / "alien.safetensors")
    models = {"theirs": {"lora": str(tmp_path / "alien.safetensors")}}
    (model,) = ExternalModelsDataset(models=models).load()
    with pytest.raises(ValueError, match=r"external model 'theirs': .*320.*another model"):
        model.sampler(diffusion_model(pipeline))(PROMPTS, SEEDS, SAMPLING)
