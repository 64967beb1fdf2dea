import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from safetydpo_kedro.diffusion.adapters import (
    compiled_blocks,
    extract_adapter,
    fused,
    reference,
    trainable_adapter,
)
from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.diffusion.lora_files import load_adapter, save_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import LoraParameters, SamplingParameters

from ..worlds import tiny_pipeline

SAMPLING = SamplingParameters(steps=3, guidance_scale=2.0, batch_size=2)
PROMPTS, SEEDS = ["knife on a blue background", "a red picture of spoon"], [5, 6]
LORA = LoraParameters(rank=2, alpha=3.0, target_modules=["to_k", "to_v", "to_out.0"])


def shapes(unet, suffixes=("attn2.to_k", "attn2.to_v", "attn1.to_out.0")):
    return {
        name: tuple(module.weight.shape)
        for name, module in unet.named_modules()
        if name.endswith(suffixes)
    }


@pytest.fixture
def model():
    return diffusion_model(tiny_pipeline())


@pytest.fixture
def adapter(model):
    return random_adapter(shapes(model.unet), 3, torch.Generator().manual_seed(0))


def test_a_saved_adapter_comes_back_and_equal_adapters_give_equal_bytes(adapter, tmp_path):
    adapter = LoraAdapter(
        {n: LoraLayer(x.a, x.b, 0.5) for n, x in adapter.layers.items()}, {"b": "2", "a": "1"}
    )
    save_adapter(adapter, tmp_path / "one.safetensors")
    save_adapter(adapter, tmp_path / "two.safetensors")
    back = load_adapter(tmp_path / "one.safetensors")
    assert back.metadata == adapter.metadata
    assert back.layers.keys() == adapter.layers.keys()
    for name, layer in adapter.layers.items():
        torch.testing.assert_close(back.layers[name].delta(), layer.delta())
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "two.safetensors"
    ).read_bytes()


def test_the_file_gives_the_same_images_in_a_stock_diffusers_pipeline(model, adapter, tmp_path):
    with fused(model.unet, adapter):
        ours = model.sample(PROMPTS, SEEDS, SAMPLING)
    plain = model.sample(PROMPTS, SEEDS, SAMPLING)
    save_adapter(adapter, tmp_path / "expert.safetensors")
    stock: StableDiffusionPipeline = tiny_pipeline()
    stock.load_lora_weights(tmp_path, weight_name="expert.safetensors")
    images = stock(
        PROMPTS,
        generator=[torch.Generator().manual_seed(s) for s in SEEDS],
        num_inference_steps=SAMPLING.steps,
        guidance_scale=SAMPLING.guidance_scale,
        output_type="np",
    ).images
    theirs = (images * 255).round().astype(np.uint8)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1
    assert np.abs(ours.astype(int) - plain.astype(int)).max() > 1


def test_fusing_leaves_no_trace(model, adapter):
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), fused(model.unet, adapter):
        raise RuntimeError("stop")
    for key, value in model.unet.state_dict().items():
        assert torch.equal(value, before[key])


def test_an_adapter_of_another_model_is_refused_by_name(model):
    alien = LoraAdapter({"no.such.layer": LoraLayer(torch.ones(1, 2), torch.ones(2, 1))})
    with pytest.raises(ValueError, match=r"no\.such\.layer"), fused(model.unet, alien):
        pass
    name, (n_out, n_in) = next(iter(shapes(model.unet).items()))
    wrong = LoraAdapter({name: LoraLayer(torch.ones(1, n_in + 1), torch.ones(n_out, 1))})
    with pytest.raises(ValueError, match="another model"), fused(model.unet, wrong):
        pass


def test_a_fresh_adapter_changes_nothing_and_a_changed_one_is_extracted_exactly(model):
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t, text = torch.tensor([10, 500]), model.encode_prompts(PROMPTS)
    plain = model.predict(x, t, text)
    with trainable_adapter(model.unet, LORA, seed=0) as weights:
        torch.testing.assert_close(model.predict(x, t, text), plain)
        with torch.no_grad():
            for weight in weights:
                weight += 0.05
        trained = model.predict(x, t, text).detach()
        with reference(model.unet):
            torch.testing.assert_close(model.predict(x, t, text), plain)
        adapter = extract_adapter(model.unet, {})
    assert (trained - plain).abs().max() > 1e-3
    torch.testing.assert_close(model.predict(x, t, text), plain, rtol=0, atol=0)
    with fused(model.unet, adapter):
        torch.testing.assert_close(model.predict(x, t, text), trained, rtol=1e-4, atol=1e-5)


def test_a_file_that_is_no_lora_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"something.else": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"something\.else"):
        load_adapter(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="train or merge"):
        load_adapter(tmp_path / "missing.safetensors")


@pytest.mark.slow  # the compiler takes half a minute
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_predict_the_same_and_are_gone_afterwards(model):
    noisy, times = torch.randn(2, 4, 8, 8), torch.tensor([3, 700])
    text = model.encode_prompts(PROMPTS)
    with trainable_adapter(model.unet, LORA, seed=0) as weights, torch.no_grad():
        for weight in weights:
            weight.add_(0.02)
        plain = model.predict(noisy, times, text)
        with reference(model.unet):
            base = model.predict(noisy, times, text)
        with compiled_blocks(model.unet):
            torch.testing.assert_close(model.predict(noisy, times, text), plain)
            with reference(model.unet):
                torch.testing.assert_close(model.predict(noisy, times, text), base)
    assert not torch.allclose(plain, base)
    assert all(module._compiled_call_impl is None for module in model.unet.modules())
