"""Convolutions are profiled as linear layers on their patches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.merging import ActivationRecorder, merge
from safetydpo_kedro.merging.layer_inputs import position_chunks, positions_per_row


def conv_experts(conv: nn.Conv2d) -> dict[str, LoraAdapter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv": tuple(conv.weight.shape)}
    experts = {}
    for number, (name, rank) in enumerate({"hate": 2, "sexual": 3}.items()):
        layer = random_adapter(shapes, rank, generator).layers["conv"]
        wide = LoraLayer(layer.a.double(), layer.b.double(), 0.5 + number, layer.kernel)
        experts[name] = LoraAdapter({"conv": wide})
    return experts


def response(conv: nn.Conv2d, weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What the convolution answers with another weight, ``[positions, units]``."""
    out = nn.functional.conv2d(
        x, weight, stride=conv.stride, padding=conv.padding, dilation=conv.dilation
    )
    return out.movedim(1, -1).flatten(0, -2)


convolutions = st.fixed_dictionaries(
    {
        "kernel_size": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 2), st.integers(1, 3)),
        "padding": st.one_of(
            st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from(["same", "valid"])
        ),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
    }
)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None, max_examples=40)
@given(convolutions, st.integers(5, 8), st.integers(5, 8), st.integers(1, 2000))
def test_a_convolution_is_profiled_as_its_response_says(shape, height, width, chunk):
    if shape["padding"] == "same":
        shape["stride"] = 1
    torch.manual_seed(0)
    unet = nn.ModuleDict({"conv": nn.Conv2d(2, 4, **shape)}).double()
    conv, x = unet["conv"], torch.randn(3, 2, height, width, dtype=torch.float64)
    experts = conv_experts(conv)
    groups, labels = ("one", "two"), ["two", "one", "two"]
    with ActivationRecorder(unet, experts, groups, chunk_elements=chunk) as recorder:
        recorder.label(labels)
        conv(x)
    statistics = recorder.profile().output["conv"]
    for index, group in enumerate(groups):
        own = x[[label == group for label in labels]]
        deltas = [expert.layers["conv"].weight_delta() for expert in experts.values()]
        activations = torch.stack([response(conv, delta, own) for delta in deltas]).abs()
        winner = activations.argmax(0).masked_fill(activations.amax(0) == 0, -1)  # padding
        assert statistics.count[index] == activations.shape[1]
        torch.testing.assert_close(statistics.absolute_sum[index], activations.sum(1))
        torch.testing.assert_close(statistics.square_sum[index], activations.square().sum(1))
        for expert in range(2):
            assert torch.equal(statistics.wins[index, expert], (winner == expert).sum(0))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None, max_examples=40)
@given(convolutions, st.integers(5, 8), st.integers(5, 8), st.integers(1, 70))
def test_parts_of_patches_are_bounded_and_are_all_patches(shape, height, width, limit):
    if shape["padding"] == "same":
        shape["stride"] = 1
    conv = nn.Conv2d(2, 4, bias=False, **shape)
    x = torch.randn(2, 2, height, width)
    parts = list(position_chunks(conv, x, limit, torch.float32))
    assert max(part.shape[1] for part in parts) <= limit
    patches = torch.cat(parts, 1)
    assert patches.shape[1] == positions_per_row(conv, x)
    answers = patches @ conv.weight.flatten(1).T
    expected = conv(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(answers, expected, rtol=1e-4, atol=1e-4)


def test_patches_held_at_once_do_not_grow_with_the_image(monkeypatch):
    conv = nn.Conv2d(8, 4, 3, padding=1)
    unet, sizes = nn.ModuleDict({"conv": conv}), []
    unfold = nn.functional.unfold

    def measured(*arguments):
        patches = unfold(*arguments)
        sizes.append(patches.numel())
        return patches

    monkeypatch.setattr(nn.functional, "unfold", measured)
    experts = {"only": random_adapter({"conv": (4, 8, 3, 3)}, 2, torch.Generator())}
    with ActivationRecorder(unet, experts, chunk_elements=1000), torch.no_grad():
        conv(torch.randn(2, 8, 40, 40))
    assert sum(sizes) == 2 * 72 * 40 * 40
    assert max(sizes) <= 1000


def test_a_profile_of_convolutions_merges():
    unet = nn.ModuleDict({"conv": nn.Conv2d(2, 4, 3)}).double()
    experts = conv_experts(unet["conv"])
    with ActivationRecorder(unet, experts) as recorder:
        unet["conv"](torch.randn(2, 2, 6, 6, dtype=torch.float64))
    profile = recorder.profile()
    merged = merge("co_merge", experts, profile=profile).adapter.layers["conv"]
    owner = profile.output["conv"].wins[0].argmax(0)
    deltas = torch.stack([expert.layers["conv"].weight_delta() for expert in experts.values()])
    torch.testing.assert_close(merged.weight_delta(), deltas[owner, torch.arange(4)])


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({"groups": 2}, (4, 1, 3, 3), "'conv' is a convolution with groups=2"),
        ({"padding_mode": "reflect", "padding": 1}, (4, 2, 3, 3), "padding_mode='reflect'"),
        ({}, (4, 2, 1, 1), r"ΔW has shape \(4, 2, 1, 1\), but the model's weight \(4, 2, 3, 3\)"),
        ({}, (4, 18), r"ΔW has shape \(4, 18\), but the model's weight \(4, 2, 3, 3\)"),
    ],
)
def test_convolutions_that_cannot_be_profiled(settings, shape, message):
    unet = nn.ModuleDict({"conv": nn.Conv2d(2, 4, 3, **settings)})
    expert = random_adapter({"conv": shape}, 2, torch.Generator())
    with pytest.raises(ValueError, match=message):
        ActivationRecorder(unet, {"odd": expert})
