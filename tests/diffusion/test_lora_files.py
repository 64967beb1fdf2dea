"""LoRA files of other programs: read as diffusers and PEFT read them, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.architectures import random_pipeline
from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.kohya import save_kohya
from safetydpo_kedro.diffusion.lora import LoraAdapter, random_adapter
from safetydpo_kedro.diffusion.lora_files import load_adapter
from safetydpo_kedro.diffusion.lora_keys import adapter_state_dict

from ..worlds import WIDTH, tiny_pipeline

UNET = tiny_pipeline().unet  # only its shapes are read
TARGETS = ["to_q", "to_k", "to_out.0", "conv1", "proj_in", "ff.net.0.proj"]
# What people train: the scale differs from 1, from PEFT's other rule, or between layers.
CONFIGS = {
    "alpha": {"r": 3, "lora_alpha": 5},
    "rslora": {"r": 3, "lora_alpha": 5, "use_rslora": True},
    "patterns": {
        "r": 2,
        "lora_alpha": 3,
        "rank_pattern": {"attn2.to_k": 4, "conv1": 1, r"^mid_block\..*\.proj": 3},
        "alpha_pattern": {"to_k": 7, "attn2.to_k": 9, "resnets.0.conv1": 2},
    },
    "rslora with patterns": {
        "r": 2,
        "lora_alpha": 3,
        "use_rslora": True,
        "rank_pattern": {r".*attn1\.to_[qk]": 5},
        "alpha_pattern": {"proj_in": 0.5},
    },
}


def predict(unet: torch.nn.Module) -> torch.Tensor:
    """Prediction of the float64 UNet for one fixed input."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator).double()
    text = torch.randn(2, 5, WIDTH, generator=generator).double()
    with torch.no_grad():
        return unet(x, torch.tensor([10, 500]), text).sample


def stock_pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline().to(torch.float64)


def assert_read_as_diffusers_reads(file: Path) -> LoraAdapter:
    """One prediction with the file loaded by diffusers, and with our adapter fused."""
    stock = stock_pipeline()
    plain = predict(stock.unet)
    adapter = load_adapter(file)
    with fused(stock.unet, adapter):
        ours = predict(stock.unet)
    stock.load_lora_weights(file.parent, weight_name=file.name)
    assert (ours - plain).abs().max() > 1e-3
    torch.testing.assert_close(ours, predict(stock.unet), rtol=1e-10, atol=1e-10)
    return adapter


def save_with_diffusers(folder: Path, with_metadata: bool = True, **config) -> Path:
    """A trained LoRA as diffusers' training scripts save it."""
    unet = stock_pipeline().unet
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(target_modules=TARGETS, **config))
    for name, weight in unet.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(unet, adapter_name="default"),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict() if with_metadata else None,
    )
    return folder / "pytorch_lora_weights.safetensors"


def kohya_state(unet: torch.nn.Module, ranks, alphas) -> dict[str, torch.Tensor]:
    """Kohya's keys for some layers of every kind, with the alphas that are given."""
    names = [
        "mid_block.attentions.0.proj_in",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
        "mid_block.resnets.0.conv1",
    ]
    layers = {}
    for name, rank in zip(names, ranks, strict=True):
        shapes = {name: tuple(unet.get_submodule(name).weight.shape)}
        layers |= random_adapter(shapes, rank, torch.Generator().manual_seed(0)).layers
    state = convert_state_dict_to_kohya(adapter_state_dict(LoraAdapter(layers)))
    for name, alpha in zip(names, alphas, strict=True):
        key = f"lora_unet_{name.replace('.', '_')}.alpha"
        assert key in state
        if alpha is None:
            del state[key]
        else:
            state[key] = torch.tensor(alpha)
    return state


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_scales_in_the_metadata_are_those_of_peft(tmp_path, config):
    file = save_with_diffusers(tmp_path, **config)
    assert any(layer.scale != 1 for layer in assert_read_as_diffusers_reads(file).layers.values())


def test_without_metadata_alpha_is_the_rank(tmp_path):
    file = save_with_diffusers(tmp_path, False, **CONFIGS["patterns"])
    adapter = assert_read_as_diffusers_reads(file)
    assert {layer.scale for layer in adapter.layers.values()} == {1.0}
    assert {layer.rank for layer in adapter.layers.values()} == {1, 2, 3, 4}


def test_old_diffusers_keys_are_read(tmp_path):
    current = load_file(save_with_diffusers(tmp_path, False, r=3))
    old = {}
    for key, value in current.items():
        for new, name in (("lora_A", "down"), ("lora_B", "up")):
            key = key.replace(f".to_out.0.{new}", f".processor.to_out_lora.{name}")
            for part in ("to_q", "to_k"):
                key = key.replace(f".{part}.{new}", f".processor.{part}_lora.{name}")
            key = key.replace(f".{new}.", f".lora.{name}.")
        old[key] = value
    assert not old.keys() & current.keys()
    save_file(old, tmp_path / "old.safetensors")
    assert_read_as_diffusers_reads(tmp_path / "old.safetensors")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_kohya_files_are_read(tmp_path, dtype):
    state = kohya_state(stock_pipeline().unet, [2, 4, 2, 2, 3], [2.5] * 5)
    state = {key: value.to(dtype) for key, value in state.items()}
    save_file(state, tmp_path / "kohya.safetensors")
    adapter = assert_read_as_diffusers_reads(tmp_path / "kohya.safetensors")
    assert {layer.scale for layer in adapter.layers.values()} == {2.5 / 2, 2.5 / 4, 2.5 / 3}


@pytest.mark.parametrize("part", ["alpha", "lora_down.weight"])
def test_numbers_that_cannot_be_computed_with_are_refused(tmp_path, part):
    state = kohya_state(stock_pipeline().unet, [2] * 5, [2.0] * 5)
    key = next(key for key in state if key.endswith(part))
    state[key] = state[key].to(torch.float8_e4m3fn)
    save_file(state, tmp_path / "kohya.safetensors")
    with pytest.raises(ValueError, match=rf"kohya.safetensors: '{key}' is of torch.float8_e4m3fn"):
        load_adapter(tmp_path / "kohya.safetensors")


def test_an_alpha_may_be_a_whole_number(tmp_path):
    state = kohya_state(stock_pipeline().unet, [2] * 5, [2.0] * 5)
    state |= {key: value.long() for key, value in state.items() if key.endswith("alpha")}
    save_file(state, tmp_path / "kohya.safetensors")
    layers = load_adapter(tmp_path / "kohya.safetensors").layers.values()
    assert {layer.scale for layer in layers} == {1.0}


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 6), min_size=5, max_size=5),
    st.lists(st.none() | st.sampled_from([0.5, 1.0, 3.0, 8.0]), min_size=5, max_size=5),
)
def test_every_kohya_layer_has_its_own_alpha(tmp_path_factory, ranks, alphas):
    """By the definition: diffusers' loader takes one alpha for all projections of attention."""
    file = tmp_path_factory.mktemp("kohya") / "x.safetensors"
    save_file(kohya_state(UNET, ranks, alphas), file)
    layers = load_adapter(file).layers.values()
    expected = [1.0 if alpha is None else alpha / r for r, alpha in zip(ranks, alphas, strict=True)]
    assert sorted(layer.scale for layer in layers) == sorted(expected)
    by_rank = {(layer.rank, layer.scale) for layer in layers}
    assert by_rank == set(zip(ranks, expected, strict=True))


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_every_layer_comes_back_from_kohyas_keys_under_its_own_name(family, tmp_path):
    unet = random_pipeline(family, tiny=True).unet
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
        and not name.startswith("add_embedding")  # see the next test
    }
    adapter = random_adapter(shapes, 2, torch.Generator().manual_seed(0))
    save_kohya(adapter, tmp_path / "all.safetensors")
    back = load_adapter(tmp_path / "all.safetensors")
    assert back.layers.keys() == adapter.layers.keys()
    for name, layer in adapter.layers.items():
        read = back.layers[name]
        assert read.weight_shape == shapes[name] and read.scale == 1
        assert torch.equal(read.a, layer.a) and torch.equal(read.b, layer.b)


def test_kohya_layers_that_would_get_one_name_are_refused(tmp_path):
    """Diffusers drops the number at the end of SDXL's ``add_embedding.linear_1``."""
    shapes = {f"add_embedding.linear_{i}": (4, 4) for i in (1, 2)}
    adapter = random_adapter(shapes, 2, torch.Generator().manual_seed(0))
    save_kohya(adapter, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="2 layers only 1 names"):
        load_adapter(tmp_path / "x.safetensors")


def test_blocks_named_as_in_stabilitys_code_are_refused_with_a_way_that_works(tmp_path):
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    pipeline = random_pipeline("sdxl", tiny=True)
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    n_out, n_in = pipeline.unet.get_submodule(name).weight.shape
    state = {
        f"{stem}.lora_down.weight": torch.randn(2, n_in),
        f"{stem}.lora_up.weight": torch.randn(n_out, 2),
        f"{stem}.alpha": torch.tensor(3.0),
    }
    save_file(state, tmp_path / "sdxl.safetensors")
    with pytest.raises(ValueError, match=r"sdxl\.safetensors.*input_blocks_4.*load_lora_weights"):
        load_adapter(tmp_path / "sdxl.safetensors")
    pipeline.load_lora_weights(tmp_path, weight_name="sdxl.safetensors")
    pipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet, adapter_name="default_0"),
        unet_lora_adapter_metadata=pipeline.unet.peft_config["default_0"].to_dict(),
    )
    layers = load_adapter(tmp_path / "pytorch_lora_weights.safetensors").layers
    assert layers.keys() == {name} and layers[name].scale == 1.5
    torch.testing.assert_close(
        layers[name].b @ layers[name].a,
        state[f"{stem}.lora_up.weight"] @ state[f"{stem}.lora_down.weight"],
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("use_dora", r"'unet\..*lora_magnitude_vector.*train it again without DoRA"),
        ("lora_bias", r"'unet\..*lora_B\.bias' is a bias.*lora_bias=False"),
    ],
)
def test_peft_variants_with_more_than_two_factors_are_refused(tmp_path, option, message):
    file = save_with_diffusers(tmp_path, r=2, **{option: True})
    with pytest.raises(ValueError, match=message):
        load_adapter(file)
    # A file that lost those tensors is still another model than its author saw.
    with safe_open(file, framework="pt") as stored:
        header = stored.metadata()
    state = {k: v for k, v in load_file(file).items() if k.endswith(("lora_A.weight", "_B.weight"))}
    save_file(state, tmp_path / "stripped.safetensors", metadata=header)
    with pytest.raises(
        ValueError, match=rf"stripped\.safetensors: metadata entry 'unet\.{option}'"
    ):
        load_adapter(tmp_path / "stripped.safetensors")
