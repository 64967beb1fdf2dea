"""What is merged in the benchmark of merging: the same experts for the project and for PEFT.

Experts are random. That costs the time of any other experts of these shapes, and is the worst case
for the error of a cut: no two experts share a direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from benchmarks.architectures import ARCHITECTURES, random_unet
from benchmarks.timing import Timed, timed
from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer, random_adapter
from safetydpo_kedro.merging import ActivationProfile, UnitStatistics, merge
from safetydpo_kedro.merging.entries import disjoint_mean, trim
from safetydpo_kedro.parameters import LoraParameters

Shape = tuple[int, int]

SCALE = 0.7  # of every expert, so that a wrong use of alpha/r would show in the errors
DENSITY = 0.2  # of all ways that trim
MERGED = "merged"


def attention_shapes(family: str) -> Counter[Shape]:
    """Weight shapes ``(out, in)`` of the layers that training adapts, and how often each occurs.

    Args:
        family: name of a published architecture; its UNet is made without memory.
    """
    with torch.device("meta"):
        unet = random_unet(ARCHITECTURES[family])
    names = LoraParameters().target_modules
    layers = [module for name, module in unet.named_modules() if name.endswith(names)]
    return Counter(tuple(layer.weight.shape) for layer in layers)


def one_of(shape: Shape) -> dict[str, Shape]:
    """A model of one layer."""
    return {"layer_0": shape}


def all_of(shapes: Counter[Shape]) -> dict[str, Shape]:
    """A model of all layers."""
    return {f"layer_{number}": shape for number, shape in enumerate(shapes.elements())}


@dataclass
class Problem:
    """Experts on some linear layers, as the project and as PEFT hold them.

    Attributes:
        shapes: layer name → ``(out, in)``.
        count: number of experts.
        rank: of each of them.
    """

    shapes: Mapping[str, Shape]
    count: int
    rank: int
    experts: dict[str, LoraAdapter] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.experts = {
            f"expert_{number:02}": random_adapter(self.shapes, self.rank, generator).scaled(SCALE)
            for number in range(self.count)
        }

    @cached_property
    def owners(self) -> dict[str, Tensor]:
        """Layer name → number of the expert that owns each output unit, drawn at random."""
        generator = torch.Generator().manual_seed(1)
        return {
            name: torch.randint(self.count, (n_out,), generator=generator)
            for name, (n_out, _) in self.shapes.items()
        }

    @cached_property
    def profile(self) -> ActivationProfile:
        """Made up: the owner of a unit has won at the only position there was."""
        units = {name: self._won(owner) for name, owner in self.owners.items()}
        inner = {name: self._won(torch.zeros(self.rank, dtype=torch.int64)) for name in self.shapes}
        return ActivationProfile(tuple(self.experts), ("made up",), units, inner)

    def _won(self, owner: Tensor) -> UnitStatistics:
        wins = nn.functional.one_hot(owner, self.count).T[None]
        return UnitStatistics(wins, wins.double(), wins.double(), torch.ones(1, dtype=torch.int64))

    @cached_property
    def model(self) -> PeftModel:
        """PEFT's model with the experts, whose factors are shared with :attr:`experts`."""
        names = list(self.experts)
        linears = {name: self._linear(shape) for name, shape in self.shapes.items()}
        config = LoraConfig(
            r=self.rank, lora_alpha=SCALE * self.rank, target_modules=list(self.shapes)
        )
        model = get_peft_model(nn.ModuleDict(linears), config, adapter_name=names[0])
        for name in names[1:]:
            model.add_adapter(name, config)
        for expert, adapter in self.experts.items():
            for name, layer in adapter.layers.items():
                target = model.get_submodule(f"base_model.model.{name}")
                target.lora_A[expert].weight.data = layer.a
                target.lora_B[expert].weight.data = layer.b
        return model

    @staticmethod
    def _linear(shape: Shape) -> nn.Linear:
        """A layer whose weight, which no merge reads, is one number in memory."""
        n_out, n_in = shape
        with torch.device("meta"):
            linear = nn.Linear(n_in, n_out, bias=False)
        linear.weight = nn.Parameter(torch.zeros(()).expand(shape), requires_grad=False)
        return linear

    def ours(self, strategy: str, **config: Any) -> Timed:
        """The project's merge: seconds and layers by name."""
        run = timed(lambda: merge(strategy, self.experts, config, self.profile).adapter.layers)
        return Timed(run.seconds, dict(run.result))

    def peft(self, combination_type: str, **options: Any) -> Timed:
        """PEFT's merge: seconds and layers by name. Reading and removing it is not timed."""
        names, weights = list(self.experts), [1.0] * self.count
        run = timed(
            lambda: self.model.add_weighted_adapter(
                names, weights, MERGED, combination_type=combination_type, **options
            )
        )
        layers = {name: self._merged(name) for name in self.shapes}
        self.model.delete_adapter(MERGED)
        return Timed(run.seconds, layers)

    def _merged(self, name: str) -> LoraLayer:
        layer = self.model.get_submodule(f"base_model.model.{name}")
        factors = layer.lora_A[MERGED].weight.detach(), layer.lora_B[MERGED].weight.detach()
        return LoraLayer(*factors, layer.scaling[MERGED])

    def factors(self) -> list[Tensor]:
        """All tensors of the experts."""
        layers = [layer for adapter in self.experts.values() for layer in adapter.layers.values()]
        return [factor for layer in layers for factor in (layer.a, layer.b)]

    def updates(self, name: str) -> list[Tensor]:
        """Dense ``ΔW_e`` of one layer, float64."""
        layers = [adapter.layers[name] for adapter in self.experts.values()]
        return [layer.scale * layer.b.double() @ layer.a.double() for layer in layers]

    def total(self, name: str) -> Tensor:
        """``Σ_e ΔW_e``, dense, float64."""
        layers = [adapter.layers[name] for adapter in self.experts.values()]
        b = torch.cat([layer.scale * layer.b.double() for layer in layers], dim=1)
        return b @ torch.cat([layer.a.double() for layer in layers])

    def ties(self, name: str) -> Tensor:
        """TIES of the updates, dense, float64."""
        return disjoint_mean([trim(delta, DENSITY) for delta in self.updates(name)], "total")

    def owned_rows(self, name: str) -> Tensor:
        """Row j of ``ΔW_e`` of the owner e of unit j, dense, float64."""
        owner = self.owners[name]
        return torch.stack(self.updates(name))[owner, torch.arange(len(owner))]
