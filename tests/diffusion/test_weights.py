"""Weights that stand in for a denoiser's own for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from safetydpo_kedro.diffusion.weights import replaced


@pytest.fixture
def unet() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return layers.to(memory_format=torch.channels_last)


NAMES = ["0.weight", "1.running_mean"]  # a parameter and a buffer


def test_weights_are_there_within_the_block_and_gone_after_it(unet):
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    given = {name: torch.full_like(before[name], 7.0) for name in NAMES}
    with replaced(unet, given):
        during = unet.state_dict()
        assert all(torch.equal(during[name], given[name]) for name in NAMES)
        assert torch.equal(during["0.bias"], before["0.bias"])
    after = unet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_originals_are_back_after_an_exception(unet):
    before = unet.state_dict()["0.weight"].clone()
    with pytest.raises(RuntimeError), replaced(unet, {"0.weight": torch.zeros(4, 3, 3, 3)}):
        raise RuntimeError
    assert torch.equal(unet[0].weight, before)


def test_the_denoiser_computes_with_them(unet):
    images = torch.ones(1, 3, 5, 5)
    with torch.no_grad(), replaced(unet, {"0.weight": torch.zeros(4, 3, 3, 3)}):
        assert torch.equal(unet[0](images)[0, :, 0, 0], unet[0].bias)


def test_precision_and_layout_are_those_of_the_denoiser(unet):
    weight = torch.ones(4, 3, 3, 3, dtype=torch.float64)
    with replaced(unet, {"0.weight": weight}):
        assert unet[0].weight.dtype == torch.float32
        assert unet[0].weight.is_contiguous(memory_format=torch.channels_last)
        unet[0].weight.data.zero_()
    assert weight.sum() == 108  # what was given is copied, not shared


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"0.weight": torch.zeros(4, 3, 3, 3), "2.weight": torch.zeros(1)}, "'2.weight' is not"),
        ({"0.weight": torch.zeros(3, 4)}, r"'0.weight' is \(3, 4\).*\(4, 3, 3, 3\)"),
    ],
)
def test_weights_of_another_model_are_refused_before_any_is_put_in(unet, weights, message):
    before = unet.state_dict()["0.weight"].clone()
    with pytest.raises(ValueError, match=message), replaced(unet, weights):
        pytest.fail("the block must not run")
    assert torch.equal(unet[0].weight, before)
