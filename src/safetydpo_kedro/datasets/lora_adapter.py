"""One LoRA in the diffusers file format as a catalog entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.datasets.previews import TablePreview, preview_table
from safetydpo_kedro.storage import local_copy, location

if TYPE_CHECKING:
    from safetydpo_kedro.diffusion.lora import LoraAdapter


KEY_FORMATS = ("diffusers", "kohya")


class LoraAdapterDataset(AbstractDataset["LoraAdapter", "LoraAdapter"]):
    """Loads and saves a ``LoraAdapter`` as one LoRA safetensors file, atomically.

    Equal adapters give equal bytes.

    Example:
        .. code-block:: yaml

            "{category}_expert":
              type: safetydpo_kedro.datasets.LoraAdapterDataset
              filepath: data/06_models/{category}_expert.safetensors

    Args:
        filepath: where the file lies.
        key_format: ``diffusers``, or ``kohya`` for ComfyUI and A1111, which is only written.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.

    Raises:
        ValueError: an unknown key format.
    """

    def __init__(
        self,
        *,
        filepath: str,
        key_format: str = "diffusers",
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if key_format not in KEY_FORMATS:
            raise ValueError(f"key_format must be one of {KEY_FORMATS}, got {key_format!r}")
        self._filepath = location(filepath, credentials, fs_args)
        self._key_format = key_format
        self.metadata = metadata

    def load(self) -> LoraAdapter:
        """Read the adapter; the file's header becomes its metadata.

        Raises:
            DatasetError: the file has Kohya's keys.
        """
        if self._key_format == "kohya":
            raise DatasetError(
                f"{self._filepath} is an export for other programs; load the adapter that it was "
                f"made from"
            )
        from safetydpo_kedro.diffusion.lora_files import load_adapter

        return load_adapter(local_copy(self._filepath))

    def save(self, data: LoraAdapter) -> None:
        """Write the adapter."""
        if self._key_format == "kohya":
            from safetydpo_kedro.diffusion.kohya import save_kohya as save
        else:
            from safetydpo_kedro.diffusion.lora_files import save_adapter as save
        save(data, self._filepath)

    def preview(self, nrows: int = 40) -> TablePreview:
        """The layers that the adapter changes most, for Kedro-Viz: rank, and size of ``ΔW``.

        Args:
            nrows: how many layers, at most.
        """
        import pandas as pd

        rows = [
            (name, layer.rank, str(layer.weight_shape), float(layer.delta().norm()))
            for name, layer in self.load().layers.items()
        ]
        table = pd.DataFrame(rows, columns=["layer", "rank", "weight", "‖ΔW‖"])
        return preview_table(table.sort_values("‖ΔW‖", ascending=False).head(nrows))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "key_format": self._key_format}
