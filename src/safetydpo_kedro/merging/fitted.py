"""Weights of rows and columns that are fitted instead of counted, as an artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

HEADER = "fitted_weights"


@dataclass(frozen=True)
class FittedWeights:
    """How much of each row and each column of every expert's ``ΔW`` enters the merge.

    ``ΔW = Σ_e diag(rows_e) ΔW_e diag(columns_e)``. Co-Merge's own rule is the special case of rows
    of zeros and ones and columns of ones.

    Attributes:
        experts: expert names, the first axis of every tensor, sorted.
        rows: layer name → float32 ``[E, out]``, by output unit.
        columns: layer name → float32 ``[E, in]``, by input unit (``in · kh · kw`` of a
            convolution).
    """

    experts: tuple[str, ...]
    rows: dict[str, Tensor]
    columns: dict[str, Tensor]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Flat tensors and string metadata, as a safetensors file holds them."""
        tensors = {f"rows.{layer}": tensor for layer, tensor in self.rows.items()}
        tensors |= {f"columns.{layer}": tensor for layer, tensor in self.columns.items()}
        return tensors, {HEADER: json.dumps({"experts": self.experts})}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> FittedWeights:
        """Inverse of :meth:`to_tensors`.

        Raises:
            ValueError: the metadata is missing, a tensor is unknown, or a layer has only one side.
        """
        if HEADER not in metadata:
            raise ValueError(
                f"not fitted weights: metadata has {sorted(metadata)}, expected '{HEADER}'"
            )
        sides: dict[str, dict[str, Tensor]] = {"rows": {}, "columns": {}}
        for key, tensor in tensors.items():
            side, _, layer = key.partition(".")
            if side not in sides:
                raise ValueError(f"fitted weights have an unknown tensor '{key}'")
            sides[side][layer] = tensor
        odd = sorted(sides["rows"].keys() ^ sides["columns"].keys())
        if odd:
            raise ValueError(f"fitted weights of layer '{odd[0]}' lack rows or columns: fit again")
        return cls(tuple(json.loads(metadata[HEADER])["experts"]), **sides)
