"""Fixtures of the merging tests."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from safetydpo_kedro.diffusion.lora import LoraAdapter

from .small_experts import TinyAttention, make_experts


@pytest.fixture
def unet() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"block": TinyAttention()}).double()


@pytest.fixture
def experts() -> dict[str, LoraAdapter]:
    return make_experts({"hate": 2, "sexual": 3, "violence": 1})
