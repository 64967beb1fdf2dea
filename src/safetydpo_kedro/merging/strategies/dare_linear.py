"""DARE (Yu et al., 2024): drop entries at random, rescale the others, add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.compress import from_matrix
from safetydpo_kedro.merging.config import DensityConfig
from safetydpo_kedro.merging.entries import add_up, drop_and_rescale
from safetydpo_kedro.merging.registry import MergedLayers, layer_by_layer, register
from safetydpo_kedro.preference.noise import key


class DareLinearConfig(DensityConfig):
    """The choices of DARE.

    Attributes:
        density: probability that an entry is kept; the paper's drop rate is ``1 − density``.
        seed: of the masks. Each layer of each expert has a mask of its own, drawn from seed,
            layer and expert name, so that other experts and their order do not change it.
    """

    seed: int = 0


@register("dare_linear", DareLinearConfig)
def dare_linear(experts: dict[str, LoraAdapter], config: DareLinearConfig) -> MergedLayers:
    """``ΔW = Σ_e drop(ΔW_e)``, whose mean over seeds is the sum ``Σ_e ΔW_e``.

    As PEFT's ``dare_linear_svd``; PEFT's ``dare_linear`` drops in A and B apart.
    """
    for name, layers in layer_by_layer(experts, config):
        like = next(iter(layers.values()))
        yield name, from_matrix(add_up(dropped(name, layers, config)), like=like)


def dropped(
    name: str, layers: Mapping[str, LoraLayer], config: DareLinearConfig
) -> Iterator[Tensor]:
    """``drop(ΔW_e)``, ``[out, in]``, of each expert in turn."""
    for expert, layer in layers.items():
        seed = key(config.seed, name, expert)
        yield drop_and_rescale(layer.delta(), config.density, seed)
