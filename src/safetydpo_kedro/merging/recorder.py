"""Recording an activation profile: one forward of the base model serves all experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
from safetydpo_kedro.merging.experts import check_experts, delta_shape, group_by_layer
from safetydpo_kedro.merging.layer_inputs import (
    AdaptedModule,
    adapted_module,
    position_chunks,
    positions_per_row,
)
from safetydpo_kedro.merging.profile import ActivationProfile, UnitStatistics, expert_digest


class _Factors(NamedTuple):
    """All experts' factors at one layer, filled up with zeros to one rank.

    Attributes:
        a: ``[experts, rank, in]``.
        b: ``[experts, out, rank]``, the scale folded in; zero for experts without this layer.
    """

    a: Tensor
    b: Tensor


class ActivationRecorder:
    """Context manager that profiles experts while the base model runs.

    Inside the block, every adapted layer's input x is captured and ``ΔW_e x = s_e B_e (A_e x)``
    is folded into running sums for all experts; of a convolution, x are its patches. Nothing is
    kept of x, so memory does not grow with the number of calibration inputs. The model itself is
    not changed: switch trained adapters off while recording, the experts are to be compared on
    the base model's activations.

    Args:
        unet: the base model; layer names of the experts are module paths inside it.
        experts: expert name → adapter.
        groups: labels that inputs may carry, ``kind`` or ``kind/category``. With a single group
            inputs need no label.
        chunk_elements: bound on the activations (experts · positions · units), and on the values
            of the patches of a convolution, that are held at once; the recorder needs about 32
            bytes for each.

    Raises:
        ValueError: experts do not fit together or do not fit the model.

    Example:
        >>> import torch
        >>> from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer
        >>> unet = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> left = LoraLayer(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0], [0.0]]))
        >>> right = LoraLayer(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [2.0]]))
        >>> experts = {"left": LoraAdapter({"0": left}), "right": LoraAdapter({"0": right})}
        >>> with ActivationRecorder(unet, experts) as recorder:
        ...     _ = unet(torch.ones(3, 2))
        >>> recorder.profile().output["0"].wins
        tensor([[[3, 0],
                 [0, 3]]])
    """

    def __init__(
        self,
        unet: nn.Module,
        experts: Mapping[str, LoraAdapter],
        groups: Sequence[str] = ("all",),
        chunk_elements: int = 2**20,
    ) -> None:
        if not groups or len(set(groups)) != len(groups):
            raise ValueError(f"groups must be distinct labels, at least 1, got {list(groups)}")
        if chunk_elements < 1:
            raise ValueError(f"chunk_elements must be at least 1, got {chunk_elements}")
        experts = check_experts(experts)
        self.experts = tuple(experts)
        self.groups = tuple(groups)
        self.chunk_elements = chunk_elements
        self._digests = tuple(expert_digest(adapter) for adapter in experts.values())
        self._modules: dict[str, nn.Module] = {}
        self._bases: dict[str, AdaptedModule] = {}  # other than the module if PEFT has wrapped it
        self._factors: dict[str, _Factors] = {}
        self._output: dict[str, UnitStatistics] = {}
        self._inner: dict[str, UnitStatistics] = {}
        self._row_groups: list[int] | None = None
        self._handles: list[RemovableHandle] = []
        for name, by_expert in group_by_layer(experts).items():
            base = adapted_module(unet, name, by_expert)
            self._modules[name], self._bases[name] = unet.get_submodule(name), base
            self._prepare(name, base.weight, by_expert)

    def label(self, labels: Sequence[str]) -> None:
        """Say to which group each row of the coming batches belongs.

        Args:
            labels: one of ``groups`` for each row of the batch, in its order.

        Raises:
            ValueError: a label is not among the recorder's groups.
        """
        unknown = sorted(set(labels) - set(self.groups))
        if unknown:
            raise ValueError(f"unknown labels {unknown}, expected some of {list(self.groups)}")
        self._row_groups = [self.groups.index(label) for label in labels]

    def profile(self) -> ActivationProfile:
        """Statistics of everything recorded so far, on the CPU.

        Raises:
            ValueError: an adapted layer received no input, or activations that are not finite.
        """
        for name, statistics in self._output.items():
            if not statistics.count.any():
                raise ValueError(
                    f"layer '{name}' received no input: run the model inside the recorder's block"
                )
            if not statistics.square_sum.isfinite().all():
                raise ValueError(
                    f"layer '{name}': activations are not finite; run the base model in float32"
                )
        return ActivationProfile(
            experts=self.experts,
            groups=self.groups,
            output={name: statistics.copy() for name, statistics in self._output.items()},
            inner={name: statistics.copy() for name, statistics in self._inner.items()},
            digests=self._digests,
        )

    def __enter__(self) -> ActivationRecorder:
        """Hook the adapted layers."""
        for name, module in self._modules.items():

            def hook(_module: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                self._record(name, args[0])

            self._handles.append(module.register_forward_pre_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the model as it was."""
        while self._handles:
            self._handles.pop().remove()

    def _prepare(self, name: str, weight: Tensor, by_expert: Mapping[str, LoraLayer]) -> None:
        """Move one layer's factors to where it runs and start its sums at zero."""
        dtype, device = torch.promote_types(weight.dtype, torch.float32), weight.device
        n_out, n_in = delta_shape(next(iter(by_expert.values())))
        rank = max(layer.rank for layer in by_expert.values())
        a = torch.zeros(len(self.experts), rank, n_in, dtype=dtype, device=device)
        b = torch.zeros(len(self.experts), n_out, rank, dtype=dtype, device=device)
        for expert, layer in by_expert.items():
            index = self.experts.index(expert)
            a[index, : layer.rank] = layer.a.detach()
            b[index, :, : layer.rank] = layer.b.detach().to(device, dtype) * layer.scale
        self._factors[name] = _Factors(a, b)
        axes = (self.groups, self.experts)
        self._output[name] = UnitStatistics.zeros(*axes, n_out, device)
        self._inner[name] = UnitStatistics.zeros(*axes, rank, device)

    @torch.no_grad()
    def _record(self, name: str, x: Tensor) -> None:
        """Add a layer's input to the sums."""
        a, b = self._factors[name]
        base = self._bases[name]
        members = self._members(name, x)
        width = len(b) * max(b.shape[1:])
        if isinstance(base, nn.Conv2d):
            width = max(width, a.shape[2])  # patches are made here, and count too
        # Whole rows at once if they fit, else parts of a single one.
        positions = max(1, self.chunk_elements // width)
        row_step = max(1, positions // positions_per_row(base, x))
        limit = max(1, positions // min(row_step, len(x)))
        # Autocast would round the experts' activations to half precision and blur the winners.
        with torch.autocast(x.device.type, enabled=False):
            for some, group in zip(x.split(row_step), members.split(row_step, 1), strict=True):
                for chunk in position_chunks(base, some, limit, a.dtype):
                    inner = chunk.flatten(0, 1) @ a.transpose(1, 2)
                    _add(self._inner[name], inner, group)
                    _add(self._output[name], inner @ b.transpose(1, 2), group)

    def _members(self, name: str, x: Tensor) -> Tensor:
        """Groups of the batch's rows, float64 ``[groups, batch]`` of zeros and ones."""
        if self._row_groups is None and len(self.groups) > 1:
            raise ValueError("inputs need labels: call recorder.label(...) before the model")
        batch = x.shape[0]
        row_groups = [0] * batch if self._row_groups is None else self._row_groups
        if len(row_groups) != batch:
            raise ValueError(
                f"layer '{name}': batch of {batch} rows, but {len(row_groups)} labels; "
                f"call recorder.label(...) with one label per row before each batch"
            )
        members = torch.zeros(len(self.groups), batch, dtype=torch.float64)
        members[row_groups, range(batch)] = 1
        return members.to(x.device)


def _add(statistics: UnitStatistics, activations: Tensor, members: Tensor) -> None:
    """Add one chunk to the sums, in place.

    Args:
        statistics: the sums of one layer.
        activations: ``[experts, rows · positions, units]``, the positions of a row together.
        members: float64 ``[groups, rows]``, 1 where the row belongs to the group.
    """
    magnitude = activations.abs()
    # Never zero, so that an inactive expert wins nothing even where all experts are inactive.
    largest = magnitude.amax(0).clamp(min=torch.finfo(magnitude.dtype).tiny)
    statistics.wins.add_(_sum_by_group(magnitude == largest, members).long())
    statistics.absolute_sum.add_(_sum_by_group(magnitude, members))
    statistics.square_sum.add_(_sum_by_group(magnitude.square(), members))
    positions = magnitude.shape[1] // members.shape[1]
    statistics.count.add_(positions * members.sum(1).long())


def _sum_by_group(values: Tensor, members: Tensor) -> Tensor:
    """Sum ``[experts, rows · positions, units]`` to float64 ``[groups, experts, units]``."""
    by_row = values.unflatten(1, (members.shape[1], -1))
    exact = torch.int64 if values.dtype == torch.bool else torch.float64
    return torch.einsum("gn,enu->geu", members, by_row.sum(2, dtype=exact).double())
