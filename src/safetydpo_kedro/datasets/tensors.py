"""Named tensors in one safetensors file as a catalog entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from safetydpo_kedro.artifacts import write_atomically
from safetydpo_kedro.datasets.previews import TablePreview, preview_tensors
from safetydpo_kedro.storage import local_copy, location

if TYPE_CHECKING:
    from torch import Tensor

HEADER_KEY = "safetydpo_kedro"


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write ``tensors`` to ``path``; equal content gives equal bytes.

    The metadata becomes one JSON string, because safetensors writes several header entries in no
    fixed order. Tensors that share storage are copied, because safetensors refuses them.

    Args:
        tensors: name → tensor of any shape and dtype, on any device.
        path: file to write.
        metadata: JSON-like values for the file's header.
    """
    from safetensors.torch import save_file

    state = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        is_view = value.untyped_storage().nbytes() != value.nbytes
        state[name] = value.clone() if is_view else value
    header = {HEADER_KEY: json.dumps(metadata, sort_keys=True)} if metadata else None
    save_file(state, path, metadata=header)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors (memory-mapped) and metadata of a file written by :func:`save_tensors`.

    Raises:
        ValueError: it is no such file, or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or a damaged one ({error}): remove it and run the "
            f"node that makes it"
        ) from error


class SafetensorsDataset(AbstractDataset[Any, Any]):
    """Loads and saves ``dict[str, Tensor]`` as one safetensors file, atomically.

    Example:
        .. code-block:: yaml

            activation_profile:
              type: safetydpo_kedro.datasets.SafetensorsDataset
              filepath: data/06_models/activation_profile.safetensors
              with_metadata: true

    Args:
        filepath: where the file lies.
        with_metadata: load and save a pair ``(tensors, metadata)`` instead of the tensors alone;
            the metadata is a dict of JSON-like values and travels in the file's header.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    def __init__(
        self,
        *,
        filepath: str,
        with_metadata: bool = False,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = location(filepath, credentials, fs_args)
        self._with_metadata = with_metadata
        self.metadata = metadata

    def load(self) -> dict[str, Tensor] | tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the tensors, memory-mapped."""
        if not self._exists():
            raise FileNotFoundError(f"no tensors at {self._filepath}: run the node that makes them")
        tensors, header = load_tensors(local_copy(self._filepath))
        return (tensors, header) if self._with_metadata else tensors

    def save(self, data: dict[str, Tensor] | tuple[dict[str, Tensor], dict[str, Any]]) -> None:
        """Write the tensors."""
        tensors, header = data if self._with_metadata else (data, None)
        with write_atomically(self._filepath) as temporary:
            save_tensors(tensors, temporary, header)

    def preview(self) -> TablePreview:
        """Names, shapes and dtypes, for Kedro-Viz."""
        return preview_tensors(local_copy(self._filepath))

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "with_metadata": self._with_metadata}
