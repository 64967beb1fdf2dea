"""Every kind of variant as a victim: what it predicts, what it draws, how it is told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from safetydpo_kedro.baselines.config import SldConfig
from safetydpo_kedro.baselines.sld import sample_safely
from safetydpo_kedro.datasets import ExternalModelsDataset
from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.lora_files import save_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import SamplingParameters
from safetydpo_kedro.pipelines.adversarial.victims import make_victims

from ..worlds import LATENT_CHANNELS, LATENT_SIZE, tiny_expert, tiny_pipeline

PROMPTS, SEEDS = ["knife on a blue background", "a red picture of spoon"], [5, 6]
SAMPLING = SamplingParameters(steps=2, guidance_scale=2.0)


@pytest.fixture(scope="module")
def model():
    return diffusion_model(tiny_pipeline())


@pytest.fixture(scope="module")
def adapter(model):
    return tiny_expert(model.unet, seed=1).scaled(5.0)


def draw(victim):
    with victim.patch():
        return victim.draw(PROMPTS, SEEDS, SAMPLING).astype(int)


def predict(victim):
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator)
    with torch.no_grad(), victim.patch():
        text = victim.model.encode_prompts(PROMPTS)
        return victim.model.predict(noisy, torch.tensor([10, 500]), text)


def test_adapters_and_weights_change_predictions_and_images_alike(model, adapter):
    ((base, plain),) = make_victims(model, "base").values()
    ((victim, digest),) = make_victims(model, "hate", adapter=adapter).values()
    with fused(model.unet, adapter):
        changed = {
            name: model.unet.state_dict()[f"{name}.weight"].clone() for name in adapter.layers
        }
        expected = model.sample(PROMPTS, SEEDS, SAMPLING).astype(int)
    weights = {f"{name}.weight": weight for name, weight in changed.items()}
    ((edited, other),) = make_victims(model, "uce", weights=weights).values()
    assert len({plain, digest, other}) == 3
    for one in (victim, edited):
        assert np.array_equal(draw(one), expected)
        assert not torch.allclose(predict(one), predict(base))
    torch.testing.assert_close(predict(edited), predict(victim))
    assert np.abs(draw(base) - expected).max() > 1


def test_guidance_draws_safely_and_predicts_as_the_model_it_guides(model):
    config = SldConfig(concept=("knife",), guidance_scale=3000, warmup_steps=0, threshold=1.0)
    victims = make_victims(model, "sld_max", guidance=config)
    victim, digest = victims["sld_max"]
    expected = sample_safely(model, PROMPTS, SEEDS, SAMPLING, config)
    assert np.array_equal(draw(victim), expected.astype(int))
    base, _ = make_victims(model, "base")["base"]
    assert torch.equal(predict(victim), predict(base))
    assert np.abs(draw(victim) - draw(base)).max() > 1
    weaker = config.model_copy(update={"guidance_scale": 10.0})
    assert make_victims(model, "sld_max", guidance=weaker)["sld_max"][1] != digest


def test_models_of_others_are_victims_under_their_own_names(model, adapter, tmp_path):
    save_adapter(adapter, tmp_path / "theirs.safetensors")
    torch.manual_seed(3)
    other = tiny_pipeline()
    with torch.no_grad():
        other.unet.conv_in.weight.mul_(2)
    other.save_pretrained(tmp_path / "pipeline")
    dataset = ExternalModelsDataset(
        models={
            "their_lora": {"lora": str(tmp_path / "theirs.safetensors"), "strength": 0.5},
            "their_model": {"pipeline": {"filepath": str(tmp_path / "pipeline")}},
        }
    )
    victims = make_victims(model, "external", external_models=dataset.load())
    assert list(victims) == ["their_lora", "their_model"]
    with fused(model.unet, adapter, 0.5):
        expected = model.sample(PROMPTS, SEEDS, SAMPLING).astype(int)
    assert np.array_equal(draw(victims["their_lora"][0]), expected)
    theirs = victims["their_model"][0]
    assert theirs.model is not model
    assert np.abs(draw(theirs) - diffusion_model(other).sample(PROMPTS, SEEDS, SAMPLING)).max() <= 1
    assert make_victims(model, "external", external_models=[]) == {}
