"""A diffusers pipeline directory, or a hub id, as a catalog entry."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from safetydpo_kedro.diffusion.model import DiffusionModel

DTYPES = ("float32", "bfloat16", "float16")


class DiffusionPipelineDataset(AbstractDataset["DiffusionPipeline", "DiffusionModel"]):
    """Loads a text-to-image model as a ``DiffusionModel``; saves a diffusers pipeline.

    Only safetensors weights are read and written.

    Example:
        .. code-block:: yaml

            base_model:
              type: safetydpo_kedro.datasets.DiffusionPipelineDataset
              filepath: data/01_raw/base_model

    Args:
        filepath: local diffusers directory (the one with ``model_index.json``).
        hub_id: name of a model on the hub, instead of ``filepath`` (which Kedro makes absolute).
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: ``auto`` (CUDA if there is one, else CPU) or any torch device name.
        hint: what to do when the directory is missing; ends the error message.
        metadata: for other tools, such as Kedro-Viz; not read here.

    Raises:
        ValueError: both or neither of ``filepath`` and ``hub_id``, or an unknown ``dtype``.
    """

    def __init__(
        self,
        *,
        filepath: str | None = None,
        hub_id: str | None = None,
        dtype: str = "float32",
        device: str = "auto",
        hint: str = "Put a diffusers pipeline there, or name another one in the catalog.",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if (filepath is None) == (hub_id is None):
            raise ValueError(
                f"give either filepath (a local diffusers directory) or hub_id, "
                f"got filepath={filepath!r} and hub_id={hub_id!r}"
            )
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self._filepath = None if filepath is None else Path(filepath)
        self._hub_id = hub_id
        self._dtype = dtype
        self._device = device
        self._hint = hint
        self.metadata = metadata

    @property
    def fingerprint_options(self) -> dict[str, Any]:
        """What else, beside the content, changes the results of a node that loads this entry."""
        return {"hub_id": self._hub_id, "dtype": self._dtype}

    def load(self) -> DiffusionModel:
        """Load the model onto its device.

        Raises:
            DatasetError: there is no diffusers pipeline at ``filepath``.
        """
        if self._filepath is not None and not self._exists():
            raise DatasetError(
                f"no diffusers pipeline at {self._filepath} (model_index.json is not there). "
                f"{self._hint}"
            )
        import torch

        from safetydpo_kedro.diffusion.model import DiffusionModel

        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        return DiffusionModel.from_pretrained(
            str(self._filepath or self._hub_id),
            dtype=getattr(torch, self._dtype),
            device=automatic if self._device == "auto" else self._device,
        )

    def save(self, data: DiffusionPipeline) -> None:
        """Write the pipeline into a staged directory, then move it into place."""
        if self._filepath is None:
            raise DatasetError(f"cannot save to the hub ({self._hub_id}); give a filepath instead")
        target = self._filepath
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as staging:
            staged = Path(staging) / target.name
            data.save_pretrained(staged, safe_serialization=True)
            if target.exists():
                os.replace(target, Path(staging) / "replaced")
            os.replace(staged, target)

    def _exists(self) -> bool:
        return self._filepath is None or (self._filepath / "model_index.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {
            "filepath": self._filepath,
            "hub_id": self._hub_id,
            "dtype": self._dtype,
            "device": self._device,
        }
