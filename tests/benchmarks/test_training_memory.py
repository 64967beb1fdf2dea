"""The computed peak behaves as memory does, and is what a real step takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.architectures import ARCHITECTURES, narrow
from benchmarks.meters import COMPUTED, PROFILED, PeakMemory, size_of
from benchmarks.training_memory import (
    Variant,
    decoding_peak,
    optimizer_sizes,
    tensors,
    training_peak,
    unet_alone,
)

# Fewer blocks than `narrow` leaves: fake operators cost the same at any size.
TINY = replace(
    narrow(ARCHITECTURES["sd15"]),
    unet={
        **narrow(ARCHITECTURES["sd15"]).unet,
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
    },
)
PIXELS = 256


def peak(variant: Variant) -> int:
    return training_peak(TINY, PIXELS, variant, COMPUTED, torch.float32)


@pytest.fixture(scope="module")
def plain() -> int:
    return peak(Variant())


@pytest.fixture(scope="module")
def weights() -> int:
    return size_of(tensors(unet_alone(TINY, torch.float32).unet))


def test_computed_peak_is_that_of_a_real_step(plain):
    real = training_peak(TINY, PIXELS, Variant(), PROFILED, torch.float32)
    assert plain == pytest.approx(real, rel=0.05)


def test_a_second_unet_adds_its_weights_and_nothing_else(plain, weights):
    assert peak(Variant(second_unet=True)) - plain == pytest.approx(weights, rel=0.02)


def test_checkpointing_keeps_fewer_activations(plain, weights):
    assert weights < peak(Variant(checkpointing=True)) < 0.8 * plain


def test_activations_grow_with_the_pairs(plain, weights):
    assert peak(Variant(pairs=2)) - weights == pytest.approx(2 * (plain - weights), rel=0.1)


def test_slicing_decodes_in_less_memory():
    sliced, whole = (decoding_peak(TINY, PIXELS, slicing, COMPUTED) for slicing in (True, False))
    assert sliced < 0.5 * whole


def test_adamw_keeps_two_numbers_per_weight_and_adafactor_fewer_than_one():
    sizes = optimizer_sizes(TINY)
    assert sizes["adamw"] == pytest.approx(2 * sizes["adapter"], rel=0.02)
    assert sizes["adafactor"] < sizes["adapter"]


def test_peak_counts_storages_once_and_forgets_freed_ones():
    with PeakMemory() as memory:
        first = torch.zeros(100, dtype=torch.float32)
        view = first.view(10, 10)[2:]
        del first
        assert memory.now == memory.peak == 400
        del view
        second = torch.zeros(50, dtype=torch.float32)
    assert (memory.now, memory.peak) == (200, 400)
    assert size_of([second, second[:5]]) == 200
