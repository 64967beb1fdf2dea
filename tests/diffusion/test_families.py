"""Each family against the stock diffusers pipeline of the same architecture and weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.architectures import (
    ARCHITECTURES,
    random_pipeline,
    random_text_encoders,
    random_unet,
    random_vae,
)
from safetydpo_kedro.diffusion.adapters import fuse, fused, trainable_adapter
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.kohya import save_kohya
from safetydpo_kedro.diffusion.lora import random_adapter
from safetydpo_kedro.diffusion.lora_files import save_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model, register
from safetydpo_kedro.parameters import (
    ExpertTrainingParameters,
    LoraParameters,
    NoiseParameters,
    PreservationParameters,
    SamplingParameters,
)
from safetydpo_kedro.preference.data import TrainingData
from safetydpo_kedro.preference.latents import encode_pairs, encode_preserved
from safetydpo_kedro.preference.trainer import TrainingRun, train_expert

PROMPTS, SEEDS = ["knife on a blue background", "a red picture of spoon"], [5, 6]
SAMPLING = SamplingParameters(steps=2, guidance_scale=2.0, batch_size=2)
# Parameters of the published UNets, of the autoencoder, and of the text encoders.
PUBLISHED = {
    "sd15": (859_520_964, 83_653_863, [123_060_480]),
    "sd21": (865_910_724, 83_653_863, [340_387_840]),
    "sdxl": (2_567_463_684, 83_653_863, [123_060_480, 694_659_840]),
}


@pytest.fixture(params=list(ARCHITECTURES), scope="module")
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return diffusion_model(random_pipeline(family, tiny=True))


@pytest.fixture(scope="module")
def adapter(model):
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in model.unet.named_modules()
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    }
    return random_adapter(shapes, 3, torch.Generator().manual_seed(0))


def draw(pipeline) -> np.ndarray:
    """Images as anybody draws them with diffusers."""
    images = pipeline(
        PROMPTS,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        num_inference_steps=SAMPLING.steps,
        guidance_scale=SAMPLING.guidance_scale,
        output_type="np",
    ).images
    return (images * 255).round().astype(int)


def test_the_architecture_is_the_published_one(family):
    architecture = ARCHITECTURES[family]
    with torch.device("meta"):
        parts = [random_unet(architecture), random_vae(architecture)]
        encoders = random_text_encoders(architecture)
    count = [sum(p.numel() for p in part.parameters()) for part in [*parts, *encoders]]
    assert (*count[:2], count[2:]) == PUBLISHED[family]


def unet_calls(model, guidance_scale: float) -> list:
    """What the stock pipeline hands to its UNet in its first step, and what it gets back."""
    calls = []

    def hook(_module, args, kwargs, output):
        calls.append((args, kwargs, output[0]))

    handle = model.unet.register_forward_hook(hook, with_kwargs=True)
    generator = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    model.pipeline(
        PROMPTS, generator=generator, num_inference_steps=1, guidance_scale=guidance_scale
    )
    handle.remove()
    return calls


def test_encoding_and_prediction_are_those_of_the_stock_pipeline(model):
    (noisy, t), kwargs, expected = unet_calls(model, guidance_scale=1.0)[0]
    conditioning = model.encode_prompts(PROMPTS)
    torch.testing.assert_close(conditioning["embedding"], kwargs["encoder_hidden_states"])
    added = kwargs.get("added_cond_kwargs") or {}
    if added:
        torch.testing.assert_close(conditioning["pooled"], added["text_embeds"])
        torch.testing.assert_close(model.time_ids(noisy), added["time_ids"])
    predicted = model.predict(noisy, t.expand(2), conditioning)
    torch.testing.assert_close(predicted, expected)


def test_without_a_prompt_the_conditioning_is_that_of_guidance(model):
    _, kwargs, _ = unet_calls(model, guidance_scale=2.0)[0]
    nothing = model.unconditional()
    torch.testing.assert_close(
        nothing["embedding"].expand(2, -1, -1), kwargs["encoder_hidden_states"][:2]
    )
    if "pooled" in nothing.tensors:
        pooled = kwargs["added_cond_kwargs"]["text_embeds"][:2]
        torch.testing.assert_close(nothing["pooled"].expand(2, -1), pooled)


def test_half_precision_computes_where_the_weights_are_half(family):
    model = diffusion_model(random_pipeline(family, tiny=True).to(torch.bfloat16))
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = model.encode_prompts(PROMPTS)
    with trainable_adapter(model.unet, LoraParameters(rank=2), seed=0) as weights:
        assert {weight.dtype for weight in weights} == {torch.float32}
        prediction = model.predict(noisy, torch.tensor([1, 500]), conditioning)
        assert prediction.dtype == torch.bfloat16
        prediction.float().square().mean().backward()
        assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in weights)


def test_the_files_give_the_projects_own_images_in_a_stock_pipeline(
    family, model, adapter, tmp_path
):
    with fused(model.unet, adapter):
        ours = model.sample(PROMPTS, SEEDS, SAMPLING).astype(int)
    assert np.abs(ours - draw(random_pipeline(family, tiny=True))).max() > 1
    save_adapter(adapter, tmp_path / "diffusers.safetensors")
    save_kohya(adapter, tmp_path / "kohya.safetensors")
    for name in ("diffusers", "kohya"):
        stock = random_pipeline(family, tiny=True)
        stock.load_lora_weights(tmp_path, weight_name=f"{name}.safetensors")
        assert np.abs(ours - draw(stock)).max() <= 1, name


def test_a_fused_pipeline_draws_the_same_without_a_lora(family, adapter, tmp_path):
    model = diffusion_model(random_pipeline(family, tiny=True))
    with fused(model.unet, adapter, strength=0.7):
        ours = model.sample(PROMPTS, SEEDS, SAMPLING).astype(int)
    fuse(model.unet, adapter, strength=0.7)
    model.pipeline.save_pretrained(tmp_path)
    stock = ARCHITECTURES[family].pipeline.from_pretrained(tmp_path, use_safetensors=True)
    assert np.abs(ours - draw(stock)).max() <= 1


def test_kohya_keys_name_every_layer_with_alpha_equal_to_the_rank(adapter, tmp_path):
    save_kohya(adapter, tmp_path / "x.safetensors")
    state = load_file(tmp_path / "x.safetensors")
    assert len(state) == 3 * len(adapter.layers)
    assert all(key.startswith("lora_unet_") and key.count(".") <= 2 for key in state)
    assert {float(value) for key, value in state.items() if key.endswith(".alpha")} == {3.0}


def test_every_family_trains_from_ln_2_on(model, tmp_path):
    rng = np.random.default_rng(0)
    x_s, x_u, x_n = rng.integers(0, 256, (3, 3, 64, 64, 3), dtype=np.uint8)
    prompts = [[f"{n} on a {c} background" for c in ("red", "blue", "green")] for n in "abc"]
    pairs = encode_pairs(model, x_s, x_u, prompts[0], prompts[1], range(3), batch_size=2)
    pool = encode_preserved(model, x_n, prompts[2], batch_size=2)
    parameters = ExpertTrainingParameters(
        steps=2,
        batch_size=3,
        redirection_weight=1.0,
        preservation=PreservationParameters(weight=1.0, rows=2, safe_share=0, empty_share=0.5),
        gradient_checkpointing=True,
        optimizer="adafactor",
    )
    data, noise = TrainingData(pairs, {"neutral": pool}), NoiseParameters(caption_dropout=0.4)
    trained = train_expert(model, TrainingRun("expert", data, noise, parameters, tmp_path / "run"))
    history = trained.history
    assert history["preference_loss"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert np.isfinite(history["loss"]).all()
    assert any(layer.b.abs().max() > 0 for layer in trained.adapter.layers.values())


def test_offloading_changes_no_image_no_latent_and_no_prediction(family, model):
    """With the CPU as the accelerator: the hooks are real, the copies have nowhere to go."""
    pipeline = random_pipeline(family, tiny=True)
    pipeline.enable_model_cpu_offload(device="cpu")
    offloaded = diffusion_model(pipeline)
    images = offloaded.sample(PROMPTS, SEEDS, SAMPLING)
    np.testing.assert_array_equal(images, model.sample(PROMPTS, SEEDS, SAMPLING))
    latents, _ = offloaded.encode_images(images)
    torch.testing.assert_close(latents, model.encode_images(images)[0])
    offloaded.place_unet()
    conditioning, timesteps = offloaded.encode_prompts(PROMPTS), torch.tensor([3, 4])
    torch.testing.assert_close(
        offloaded.predict(latents, timesteps, conditioning),
        model.predict(latents, timesteps, conditioning),
    )


def test_original_sdxl_autoencoder_encodes_in_float32_though_it_is_half(family):
    model = diffusion_model(random_pipeline(family, tiny=True))
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    exact, _ = model.encode_images(images)
    vae = model.pipeline.vae.to(torch.float16)
    vae.register_to_config(force_upcast=True)
    mean, _ = model.encode_images(images)
    assert vae.dtype == torch.float16
    # The weights are rounded to half precision, the computation is not.
    torch.testing.assert_close(mean, exact, rtol=2e-2, atol=2e-2)
    assert mean.dtype == torch.float32


def test_a_pipeline_class_has_one_family_and_an_unknown_one_is_named():
    with pytest.raises(ValueError, match="has a family already"):
        register("StableDiffusionPipeline")(object)

    class NewPipeline:
        pass

    with pytest.raises(ValueError, match=r"NewPipeline.*StableDiffusionXLPipeline"):
        diffusion_model(NewPipeline())


def test_rows_of_a_conditioning_are_selected_mixed_and_joined_together():
    text = {"embedding": torch.randn(3, 2, 4), "pooled": torch.randn(3, 5)}
    full, empty = (
        Conditioning(text),
        Conditioning({k: torch.zeros_like(v[:1]) for k, v in text.items()}),
    )
    mixed = full.where(torch.tensor([True, False, True]), empty)
    for name, tensor in text.items():
        assert torch.equal(mixed[name][[0, 2]], tensor[[0, 2]])
        assert not mixed[name][1].any()
        joined = Conditioning.join(full.rows(torch.tensor([2])), empty)
        assert torch.equal(joined[name][0], tensor[2]) and len(joined) == 2
    stored = {**full.to_tensors("safe_"), **empty.to_tensors("unsafe_")}
    assert Conditioning.from_tensors(stored, "safe_").tensors.keys() == text.keys()
