"""One LoRA in the diffusers file format as a catalog entry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

if TYPE_CHECKING:
    from safetydpo_kedro.diffusion.lora import LoraAdapter


class LoraAdapterDataset(AbstractDataset["LoraAdapter", "LoraAdapter"]):
    """Loads and saves a ``LoraAdapter`` as diffusers LoRA safetensors, atomically.

    Equal adapters give equal bytes.

    Example:
        .. code-block:: yaml

            "{category}_expert":
              type: safetydpo_kedro.datasets.LoraAdapterDataset
              filepath: data/06_models/{category}_expert.safetensors

    Args:
        filepath: where the file lies.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> LoraAdapter:
        """Read the adapter; the file's header becomes its metadata."""
        from safetydpo_kedro.diffusion.lora import load_adapter

        return load_adapter(self._filepath)

    def save(self, data: LoraAdapter) -> None:
        """Write the adapter."""
        from safetydpo_kedro.diffusion.lora import save_adapter

        save_adapter(data, self._filepath)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
