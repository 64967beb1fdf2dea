"""Small models and experts, and the dense float64 definition of a LoRA."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.merging import ActivationProfile, ActivationRecorder, FittedWeights
from safetydpo_kedro.merging.experts import check_experts, delta_shape, group_by_layer

SHAPES = {"block.to_q": (6, 4), "block.to_out.0": (4, 6)}


class TinyAttention(nn.Module):
    """A model with nested names, called like a UNet's attention block."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(4, 6)
        self.to_out = nn.ModuleList([nn.Linear(6, 4), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out[0](self.to_q(x).tanh())


def make_experts(ranks: Mapping[str, int], seed: int = 0) -> dict[str, LoraAdapter]:
    """Random float64 experts of the given ranks, each with another scale."""
    generator = torch.Generator().manual_seed(seed)
    experts = {}
    for number, (name, rank) in enumerate(ranks.items()):
        adapter = random_adapter(SHAPES, rank, generator)
        layers = {
            layer: LoraLayer(factors.a.double(), factors.b.double(), 0.5 + number)
            for layer, factors in adapter.layers.items()
        }
        experts[name] = LoraAdapter(layers)
    return experts


def dense(adapter: LoraAdapter, layer: str) -> Tensor:
    """ΔW in float64; zero where the adapter lacks the layer."""
    if layer not in adapter.layers:
        return torch.zeros(SHAPES[layer], dtype=torch.float64)
    factors = adapter.layers[layer]
    return factors.scale * factors.b.double() @ factors.a.double()


def record_profile(experts: Mapping[str, LoraAdapter], seed: int = 0) -> ActivationProfile:
    """Profile of the experts on random inputs of a random model."""
    torch.manual_seed(seed)
    unet = nn.ModuleDict({"block": TinyAttention()}).double()
    with ActivationRecorder(unet, experts) as recorder:
        unet["block"](torch.randn(4, 3, 4, dtype=torch.float64))
    return recorder.profile()


def plain_weights(experts: Mapping[str, LoraAdapter]) -> FittedWeights:
    """Weights of one for every row and column: the plain sum."""
    experts = check_experts(experts)
    shapes = {
        name: delta_shape(next(iter(layers.values())))
        for name, layers in group_by_layer(experts).items()
    }
    return FittedWeights(
        tuple(experts),
        {name: torch.ones(len(experts), n_out) for name, (n_out, _) in shapes.items()},
        {name: torch.ones(len(experts), n_in) for name, (_, n_in) in shapes.items()},
    )
