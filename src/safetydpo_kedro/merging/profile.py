"""What calibration inputs say about the experts: who is most active, where, and how strongly.

Co-Merge (SafetyDPO, section on merging) analyses "which expert has the highest activation for
each weight across all inputs". Our reading: an *input* is one position (token or pixel) reaching
an adapted layer, an *activation* of expert e is one entry of ``ΔW_e x``, and the expert with the
largest absolute activation wins that unit at that position.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

HEADER = "activation_profile"


@dataclass(frozen=True)
class UnitStatistics:
    """Sums over positions of the experts' activations at the units of one layer.

    Sums, not means, so that statistics of two sets of inputs add up.

    Attributes:
        wins: int64 ``[groups, experts, units]``, positions where the expert's absolute
            activation was the largest and not zero; experts that are equal all win.
        absolute_sum: float64 ``[groups, experts, units]``, sum of absolute activations.
        square_sum: float64 ``[groups, experts, units]``, sum of squared activations.
        count: int64 ``[groups]``, positions seen.
    """

    wins: Tensor
    absolute_sum: Tensor
    square_sum: Tensor
    count: Tensor

    @classmethod
    def zeros(
        cls, groups: int, experts: int, units: int, device: torch.device | str = "cpu"
    ) -> UnitStatistics:
        """Statistics of no inputs."""
        shape = (groups, experts, units)
        return cls(
            wins=torch.zeros(shape, dtype=torch.int64, device=device),
            absolute_sum=torch.zeros(shape, dtype=torch.float64, device=device),
            square_sum=torch.zeros(shape, dtype=torch.float64, device=device),
            count=torch.zeros(groups, dtype=torch.int64, device=device),
        )

    @property
    def win_share(self) -> Tensor:
        """Wins over positions, float64 ``[groups, experts, units]`` in [0, 1]."""
        return self.wins / self._positions()

    @property
    def magnitude(self) -> Tensor:
        """Mean absolute activation, float64 ``[groups, experts, units]``."""
        return self.absolute_sum / self._positions()

    @property
    def root_mean_square(self) -> Tensor:
        """Root of the mean squared activation, float64 ``[groups, experts, units]``."""
        return (self.square_sum / self._positions()).sqrt()

    def total(self) -> UnitStatistics:
        """All groups as one: the statistic "across all inputs" of the paper."""
        return self._map(lambda tensor: tensor.sum(0, keepdim=True))

    def copy(self) -> UnitStatistics:
        """A copy on the CPU that later additions do not reach."""
        return self._map(lambda tensor: tensor.to("cpu", copy=True))

    def tensors(self) -> dict[str, Tensor]:
        """Field name → tensor."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _map(self, function: Callable[[Tensor], Tensor]) -> UnitStatistics:
        return UnitStatistics(**{k: function(tensor) for k, tensor in self.tensors().items()})

    def _positions(self) -> Tensor:
        """Counts that broadcast and divide: a group without inputs has means of zero."""
        return self.count.clamp(min=1).double()[:, None, None]


@dataclass(frozen=True)
class ActivationProfile:
    """Statistics of all experts at all adapted layers.

    Attributes:
        experts: expert names, the second axis of every statistic, sorted.
        groups: labels of the calibration inputs (their category), the first axis.
        output: layer name → statistics of ``ΔW_e x``, one unit per output feature.
        inner: layer name → statistics of ``A_e x``, one unit per rank; an expert of lower rank
            has zeros behind its last unit. Only the ``factor_row`` variant needs them.
    """

    experts: tuple[str, ...]
    groups: tuple[str, ...]
    output: dict[str, UnitStatistics]
    inner: dict[str, UnitStatistics]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Flat tensors and string metadata, as a safetensors file holds them.

        The metadata is a single entry, because safetensors does not keep the order of several
        and equal profiles must give equal bytes.
        """
        tensors = {
            f"{part}.{field}.{layer}": tensor.contiguous()
            for part, layers in (("output", self.output), ("inner", self.inner))
            for layer, statistics in layers.items()
            for field, tensor in statistics.tensors().items()
        }
        header = json.dumps({"experts": self.experts, "groups": self.groups})
        return tensors, {HEADER: header}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> ActivationProfile:
        """Inverse of :meth:`to_tensors`.

        Raises:
            ValueError: the metadata or a tensor of a layer is missing, or a tensor is unknown.
        """
        if HEADER not in metadata:
            raise ValueError(
                f"not an activation profile: metadata has {sorted(metadata)}, expected '{HEADER}'"
            )
        found: dict[str, dict[str, dict[str, Tensor]]] = {"output": {}, "inner": {}}
        for key, tensor in tensors.items():
            part, _, rest = key.partition(".")
            field, _, layer = rest.partition(".")
            if part not in found:
                raise ValueError(f"activation profile has an unknown tensor '{key}'")
            found[part].setdefault(layer, {})[field] = tensor
        header = json.loads(metadata[HEADER])
        try:
            parts = {
                part: {layer: UnitStatistics(**named) for layer, named in layers.items()}
                for part, layers in found.items()
            }
        except TypeError as error:
            raise ValueError(f"activation profile is incomplete: {error}") from error
        return cls(tuple(header["experts"]), tuple(header["groups"]), **parts)
