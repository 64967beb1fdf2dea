"""Catalog entries that need not be there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.storage import Location, local_copy, location

# What freshness.py looks at; it is the wrapped data set that has it, or has it not.
_TRACKED = (
    "_filepath",
    "_fs",
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
                filepath: data/02_intermediate/imported_pairs.parquet

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
        if name in _TRACKED or (name == "preview" and self._exists()):
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
    """Loads the path of a file or folder that somebody may have put there.

    Whether it is there is for the reader to ask; its content tells what is fresh.

    Example:
        .. code-block:: yaml

            copro_file:
              type: safetydpo_kedro.datasets.LocalPathDataset
              filepath: data/01_raw/published/copro
              suffixes: [.json, .csv]

    Args:
        filepath: the file or folder, without its suffix if ``suffixes`` are given.
        suffixes: those that it may have; the first that is there counts.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    def __init__(
        self,
        *,
        filepath: str,
        suffixes: Sequence[str] = ("",),
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._candidates = [
            location(f"{filepath}{suffix}", credentials, fs_args) for suffix in suffixes
        ]
        self.metadata = metadata

    @property
    def _filepath(self) -> Location:
        there = (path for path in self._candidates if path.exists())
        return next(there, self._candidates[0])

    def load(self) -> Path:
        """The path; of something on remote storage, that of a local copy."""
        there = self._filepath
        return local_copy(there) if there.exists() else there

    def save(self, data: None) -> NoReturn:
        """Such files are only read.

        Raises:
            DatasetError: always.
        """
        raise DatasetError(f"{self._filepath} is read, and not written")

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "candidates": self._candidates}
