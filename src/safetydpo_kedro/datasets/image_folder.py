"""Folders of images, one for each benchmark, as a catalog entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.storage import Location, location

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class ImageFolderDataset(AbstractDataset["pd.DataFrame", "pd.DataFrame"]):
    """Loads a table of the images of a folder; each is read when somebody looks at it.

    The folder holds one folder for each benchmark, named like it: ``<path>/coco/0001.jpg``.

    Example:
        .. code-block:: yaml

            reference_images:
              type: safetydpo_kedro.datasets.ImageFolderDataset
              path: data/01_raw/reference_images

    Args:
        path: the folder.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    def __init__(
        self,
        *,
        path: str,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        # The name by which freshness finds the content.
        self._filepath = location(path, credentials, fs_args)
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """List the images.

        Returns:
            ``benchmark, image``, sorted by benchmark and file name; ``image`` is what
            ``images.decode_images`` takes. Hidden files and files of other kinds are left out.

        Raises:
            DatasetError: there is no such folder, no folder in it, or one without images.
        """
        import pandas as pd

        from safetydpo_kedro.images import ImageFile

        rows = []
        for folder in self._benchmarks():
            images = _images(folder)
            if not images:
                raise DatasetError(
                    f"no images in {folder}: it should hold {_kinds()}, and no further folders"
                )
            rows += [(folder.name, ImageFile(image)) for image in images]
        return pd.DataFrame(rows, columns=["benchmark", "image"])

    def save(self, data: pd.DataFrame) -> NoReturn:
        """Such folders are only read.

        Raises:
            DatasetError: always.
        """
        raise DatasetError(f"{self._filepath} is read, and not written")

    def _benchmarks(self) -> list[Location]:
        layout = f"lay images out as {self._filepath}/<benchmark>/<name>.png"
        if not self._filepath.is_dir():
            raise DatasetError(f"no folder of images at {self._filepath}: {layout}")
        folders = [entry for entry in _visible(self._filepath) if entry.is_dir()]
        if folders:
            return folders
        loose = _images(self._filepath)
        found = f"its images, such as {loose[0].name}, are in no folder" if loose else "it is empty"
        raise DatasetError(f"{self._filepath} has no folder for a benchmark; {found}: {layout}")

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"path": self._filepath}


def _images(folder: Location) -> list[Location]:
    return [p for p in _visible(folder) if p.suffix.lower() in SUFFIXES and p.is_file()]


def _visible(folder: Location) -> list[Location]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _kinds() -> str:
    return ", ".join(f"*{suffix}" for suffix in SUFFIXES)
