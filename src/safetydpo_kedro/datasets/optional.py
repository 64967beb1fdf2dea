"""Catalog entries that need not be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

# What freshness.py looks at; it is the wrapped data set that has it, or has it not.
_TRACKED = (
    "_filepath",
    "_protocol",
    "_version",
    "expect",
    "manifest_path",
    "fingerprint_options",
)


class OptionalDataset(AbstractDataset[Any, Any]):
    """Loads ``None`` as long as the wrapped data set is not there.

    Example:
        .. code-block:: yaml

            imported_pairs:
              type: safetydpo_kedro.datasets.OptionalDataset
              dataset:
                type: pandas.ParquetDataset
                filepath: data/03_primary/imported_pairs.parquet

    Args:
        dataset: the wrapped data set, or its catalog entry.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    def __init__(
        self,
        *,
        dataset: dict[str, Any] | AbstractDataset,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if isinstance(dataset, dict):
            dataset = AbstractDataset.from_config("wrapped", dataset)
        self._dataset = dataset
        self.metadata = metadata

    def __getattr__(self, name: str) -> Any:
        if name in _TRACKED:
            return getattr(self._dataset, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def load(self) -> Any:
        """The data, ``None`` if there are none."""
        return self._dataset.load() if self._dataset.exists() else None

    def save(self, data: Any) -> None:
        """Save to the wrapped data set."""
        self._dataset.save(data)

    def _exists(self) -> bool:
        return self._dataset.exists()

    def _release(self) -> None:
        self._dataset.release()

    def _describe(self) -> dict[str, Any]:
        return {"dataset": repr(self._dataset)}


class LocalPathDataset(AbstractDataset[None, Path]):
    """Loads the path of a file or folder that somebody put there, fingerprinted by its content.

    Args:
        filepath: the file or folder.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        """The path.

        Raises:
            DatasetError: there is nothing.
        """
        if not self._exists():
            raise DatasetError(f"there is nothing at {self._filepath}: put the file there")
        return self._filepath

    def save(self, data: None) -> NoReturn:
        """Such files are only read.

        Raises:
            DatasetError: always.
        """
        raise DatasetError(f"{self._filepath} is read, and not written")

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
