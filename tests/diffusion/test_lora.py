"""LoRA layers, linear and convolutional, against dense definitions and PEFT's own forward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import conv2d, unfold

from safetydpo_kedro.diffusion.adapters import extract_adapter, fused, trainable_adapter
from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.diffusion.lora_files import load_adapter, save_adapter
from safetydpo_kedro.diffusion.lora_keys import adapter_from_state_dict
from safetydpo_kedro.parameters import LoraParameters

from ..worlds import WIDTH, tiny_pipeline

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
KERNELS = [None, (1, 1), (3, 3), (1, 3), (3, 2)]


@st.composite
def layers(draw) -> LoraLayer:
    """A layer of any small size, linear or not, in any precision that files hold."""
    rank, n_out, n_in = (draw(st.integers(1, 5)) for _ in range(3))
    kernel = draw(st.sampled_from(KERNELS))
    columns = n_in * (kernel[0] * kernel[1] if kernel else 1)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from(DTYPES))
    a = torch.randn(rank, columns, generator=generator).to(dtype)
    b = torch.randn(n_out, rank, generator=generator).to(dtype)
    # Powers of two, so that folding the scale into B rounds nothing.
    return LoraLayer(a, b, draw(st.sampled_from([1.0, 0.5, -4.0])), kernel)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,4}(\.[0-9a-z_]{1,5}){0,2}", fullmatch=True), layers(), min_size=1
    )
)
def test_what_is_saved_comes_back(tmp_path_factory, by_name):
    folder = tmp_path_factory.mktemp("round_trip")
    save_adapter(LoraAdapter(by_name, {"made": "here"}), folder / "one.safetensors")
    back = load_adapter(folder / "one.safetensors")
    assert back.metadata == {"made": "here"}
    assert back.layers.keys() == by_name.keys()
    for name, layer in by_name.items():
        read = back.layers[name]
        assert (read.kernel, read.scale) == (layer.kernel, 1.0)
        assert read.a.dtype == layer.a.dtype
        assert torch.equal(read.a, layer.a) and torch.equal(read.b, layer.b * layer.scale)
    save_adapter(back, folder / "two.safetensors")
    written = [(folder / f"{name}.safetensors").read_bytes() for name in ("one", "two")]
    assert written[0] == written[1]


@settings(deadline=None)
@given(layers(), st.integers(0, 99))
def test_a_convolution_with_the_delta_is_the_factors_on_patches(layer, seed):
    kernel = layer.kernel or (1, 1)
    layer = LoraLayer(layer.a.double(), layer.b.double(), layer.scale, kernel)
    channels = layer.weight_shape[1]
    x = torch.randn(2, channels, 5, 4, generator=torch.Generator().manual_seed(seed)).double()
    patches = unfold(x, kernel)  # [batch, in · kh · kw, positions]
    expected = layer.scale * (layer.b @ (layer.a @ patches))
    torch.testing.assert_close(conv2d(x, layer.weight_delta()).flatten(2), expected)


def test_a_linear_layers_delta_has_the_weights_shape():
    layer = LoraLayer(torch.ones(2, 7), torch.ones(5, 2), 0.5)
    assert layer.weight_shape == (5, 7)
    assert torch.equal(layer.weight_delta(), torch.ones(5, 7))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [((3, 3), "no multiple"), ((0, 3), "at least 1"), ((3,), "height, width")],
)
def test_a_kernel_that_the_factor_does_not_have_is_refused(kernel, message):
    with pytest.raises(ValueError, match=message):
        LoraLayer(torch.ones(2, 10), torch.ones(4, 2), kernel=kernel)


def test_a_scaled_adapter_stays_convolutional():
    adapter = random_adapter({"conv": (4, 2, 3, 3)}, 2, torch.Generator().manual_seed(0))
    scaled = adapter.scaled(-0.5).layers["conv"]
    assert scaled.kernel == (3, 3)
    torch.testing.assert_close(scaled.weight_delta(), -0.5 * adapter.layers["conv"].weight_delta())


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3, 3, 3), (4, 2)),
        ((2, 3), (4, 2, 1, 1)),
        ((2, 3, 3, 3), (4, 2, 3, 3)),
        ((2, 3, 3), (4, 2, 1)),
        ((2, 3, 3, 3), (4, 1, 1, 1)),  # as PEFT has it for a convolution of two groups
    ],
)
def test_factors_of_no_linear_layer_and_no_plain_convolution_are_refused(shapes):
    a, b = (torch.ones(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"file\.x: layer 'conv1'.*without groups"):
        adapter_from_state_dict(
            {"unet.conv1.lora_A.weight": a, "unet.conv1.lora_B.weight": b}, source="file.x"
        )


def test_convolutions_train_and_fused_they_predict_what_peft_predicts():
    unet = tiny_pipeline().unet
    targets = ["conv_in", "conv1", "conv2", "conv_shortcut", "conv", "proj_in", "to_k"]
    parameters = LoraParameters(rank=3, alpha=2.0, target_modules=targets)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 5, WIDTH, generator=generator)
    timesteps = torch.tensor([10, 500])

    def predict():
        return unet(x, timesteps, text).sample

    with trainable_adapter(unet, parameters, seed=0) as weights:
        optimizer = torch.optim.SGD(weights, lr=1.0)
        predict().square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            trained = predict()
            adapter = extract_adapter(unet, {})
    kernels = {name: layer.kernel for name, layer in adapter.layers.items()}
    modules = dict(unet.named_modules())
    assert {name.rpartition(".")[2] for name in kernels} == set(targets)
    for name, kernel in kernels.items():
        assert kernel == getattr(modules[name], "kernel_size", None)
    with torch.no_grad():
        assert (predict() - trained).abs().max() > 1e-3
        with fused(unet, adapter):
            torch.testing.assert_close(predict(), trained, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(4, 8, 3, padding=1),
    ],
    ids=["groups", "dilation", "padding mode", "transposed"],
)
def test_layers_whose_lora_is_no_update_of_the_weight_are_refused(module):
    unet = tiny_pipeline().unet
    unet.conv_in = module
    parameters = LoraParameters(target_modules=["to_q", "conv_in"])
    with (
        pytest.raises(ValueError, match=r"target_modules matches 'conv_in'.*adapted"),
        trainable_adapter(unet, parameters, seed=0),
    ):
        pass
    assert not any("lora" in name for name, _ in unet.named_modules())


def test_half_precision_factors_are_multiplied_in_the_weights_precision():
    """As PEFT does: the rounding of a half-precision ΔW would be larger than the file's."""
    unet = tiny_pipeline().unet.double()
    shapes = {"conv_in": tuple(unet.conv_in.weight.shape)}
    layer = random_adapter(shapes, 3, torch.Generator().manual_seed(0)).layers["conv_in"]
    half = LoraLayer(layer.a.bfloat16(), layer.b.bfloat16(), 0.3, layer.kernel)
    before = unet.conv_in.weight.detach().clone()
    update = 0.3 * (half.b.double() @ half.a.double()).reshape(before.shape)
    with fused(unet, LoraAdapter({"conv_in": half})):
        after = unet.conv_in.weight.detach()
        torch.testing.assert_close(after, before + update, rtol=1e-12, atol=1e-12)
    assert torch.equal(unet.conv_in.weight, before)
