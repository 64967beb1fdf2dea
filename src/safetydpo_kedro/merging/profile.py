"""What calibration inputs say about the experts: who is most active, where, and how strongly.

Co-Merge (SafetyDPO, section on merging) analyses "which expert has the highest activation for
each weight across all inputs". Our reading: an *input* is one position (token or pixel) reaching
an adapted layer, an *activation* of expert e is one entry of ``ΔW_e x``, and the expert with the
largest absolute activation wins that unit at that position.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.digests import tensors_digest

HEADER = "activation_profile"
STATISTICS = ("wins", "absolute_sum", "square_sum", "count")
NOT_COUNTED = -1  # wins of a profile to which experts were added later


@dataclass(frozen=True)
class UnitStatistics:
    """Sums over positions of the experts' activations at the units of one layer.

    Sums, not means, so that statistics of two sets of inputs add up.

    Attributes:
        wins: int64 ``[groups, experts, units]``, positions where the expert's absolute
            activation was the largest and not zero; experts that are equal all win. All −1 if
            the experts were not recorded together.
        absolute_sum: float64 ``[groups, experts, units]``, sum of absolute activations.
        square_sum: float64 ``[groups, experts, units]``, sum of squared activations.
        count: int64 ``[groups]``, positions seen.
        groups: labels of the first axis, ``kind`` or ``kind/category``; may be left out where
            nobody asks for a group by name.
        experts: labels of the second axis; may be left out likewise.
    """

    wins: Tensor
    absolute_sum: Tensor
    square_sum: Tensor
    count: Tensor
    groups: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()

    @classmethod
    def zeros(
        cls,
        groups: Sequence[str],
        experts: Sequence[str],
        units: int,
        device: torch.device | str = "cpu",
    ) -> UnitStatistics:
        """Statistics of no inputs."""
        shape = (len(groups), len(experts), units)
        return cls(
            wins=torch.zeros(shape, dtype=torch.int64, device=device),
            absolute_sum=torch.zeros(shape, dtype=torch.float64, device=device),
            square_sum=torch.zeros(shape, dtype=torch.float64, device=device),
            count=torch.zeros(len(groups), dtype=torch.int64, device=device),
            groups=tuple(groups),
            experts=tuple(experts),
        )

    @property
    def has_wins(self) -> bool:
        """Whether wins were counted, which takes all experts at once."""
        return not bool((self.wins < 0).any())

    @property
    def counted_wins(self) -> Tensor:
        """The wins, int64 ``[groups, experts, units]``.

        Raises:
            ValueError: wins were not counted.
        """
        if not self.has_wins:
            raise ValueError(
                "this profile has no wins: experts were added to it that were not recorded beside "
                "the others; record all experts at once, or take another statistic, such as "
                "mean_activation"
            )
        return self.wins

    @property
    def win_share(self) -> Tensor:
        """Wins over positions, float64 ``[groups, experts, units]`` in [0, 1].

        Raises:
            ValueError: wins were not counted.
        """
        return self.counted_wins / self._positions()

    @property
    def magnitude(self) -> Tensor:
        """Mean absolute activation, float64 ``[groups, experts, units]``."""
        return self.absolute_sum / self._positions()

    @property
    def mean_square(self) -> Tensor:
        """Mean squared activation, float64 ``[groups, experts, units]``."""
        return self.square_sum / self._positions()

    def of_kinds(self, kinds: Collection[str] | None) -> UnitStatistics:
        """Groups of some kinds of inputs: those named so, or whose name begins with ``kind/``.

        Args:
            kinds: for example ``["unsafe"]``; None: all groups.

        Raises:
            ValueError: there is no group of a kind.
        """
        if kinds is None:
            return self
        found = [group.partition("/")[0] for group in self.groups]
        if not kinds or not set(kinds) <= set(found):
            raise ValueError(
                f"groups {sorted(kinds)} are asked for, but the profile has inputs of "
                f"{sorted(set(found))}; name some of these, or record the profile with the "
                f"missing ones among its prompts"
            )
        rows = [i for i, kind in enumerate(found) if kind in kinds]
        kept = tuple(self.groups[i] for i in rows)
        return replace(self._map(lambda tensor: tensor[rows]), groups=kept)

    def total(self) -> UnitStatistics:
        """All groups as one: the statistic "across all inputs" of the paper."""
        return replace(self._map(lambda tensor: tensor.sum(0, keepdim=True)), groups=("all",))

    def copy(self) -> UnitStatistics:
        """A copy on the CPU that later additions do not reach."""
        return self._map(lambda tensor: tensor.to("cpu", copy=True))

    def tensors(self) -> dict[str, Tensor]:
        """Name of the statistic → tensor."""
        return {name: getattr(self, name) for name in STATISTICS}

    def _map(self, function: Callable[[Tensor], Tensor]) -> UnitStatistics:
        return replace(
            self,
            wins=function(self.wins),
            absolute_sum=function(self.absolute_sum),
            square_sum=function(self.square_sum),
            count=function(self.count),
        )

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
        digests: of each expert, see :func:`expert_digest`; empty if unknown.
        calibration: digest of the calibration inputs; empty if they were chosen by hand.
    """

    experts: tuple[str, ...]
    groups: tuple[str, ...]
    output: dict[str, UnitStatistics]
    inner: dict[str, UnitStatistics]
    digests: tuple[str, ...] = ()
    calibration: str = ""

    def check_made_of(self, experts: Mapping[str, LoraAdapter]) -> None:
        """Refuse experts of the same names, but of other weights; without digests, take all.

        Args:
            experts: expert name → adapter, of the profile's names.

        Raises:
            ValueError: an expert is not the one that was recorded.
        """
        recorded = dict(zip(self.experts, self.digests, strict=False))
        other = [n for n, digest in recorded.items() if digest != expert_digest(experts[n])]
        if other:
            raise ValueError(
                f"the profile was recorded for other experts named {other}: their weights have "
                f"changed since; record it again"
            )

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
        names = ("experts", "groups", "digests", "calibration")
        return tensors, {HEADER: json.dumps({name: getattr(self, name) for name in names})}

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
        experts, groups = tuple(header.get("experts", ())), tuple(header.get("groups", ()))
        try:
            parts = {
                part: {
                    layer: UnitStatistics(**named, groups=groups, experts=experts)
                    for layer, named in layers.items()
                }
                for part, layers in found.items()
            }
        except TypeError as error:
            raise ValueError(f"activation profile is incomplete: {error}") from error
        return cls(
            experts=experts,
            groups=groups,
            output=parts["output"],
            inner=parts["inner"],
            digests=tuple(header.get("digests", ())),
            calibration=header.get("calibration", ""),
        )


def expert_digest(adapter: LoraAdapter) -> str:
    """SHA-256 (64 hex digits) over names, factors and scales of an expert's layers."""
    tensors: dict[str, Tensor] = {}
    for name, layer in adapter.layers.items():
        scale = torch.tensor(layer.scale, dtype=torch.float64)
        tensors |= {f"{name}.a": layer.a, f"{name}.b": layer.b, f"{name}.scale": scale}
    return tensors_digest(tensors)
