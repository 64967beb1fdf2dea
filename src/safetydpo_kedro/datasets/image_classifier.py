"""An image classifier of transformers as a catalog entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.datasets.devices import device_named
from safetydpo_kedro.storage import local_copy, location
from safetydpo_kedro.threads import builds_models

if TYPE_CHECKING:
    from safetydpo_kedro.metrics.classifier import ImageClassifier

CONFIG_FILE = "config.json"


class ImageClassifierDataset(AbstractDataset[None, "ImageClassifier"]):
    """Loads a local directory of transformers as an ``ImageClassifier``; read-only.

    Weights are safetensors only, and no code of the directory is run.

    Example:
        .. code-block:: yaml

            extra_judge:
              type: safetydpo_kedro.datasets.ImageClassifierDataset
              filepath: data/01_raw/extra_judge

    Args:
        filepath: the directory (the one with ``config.json``).
        device: ``auto`` (CUDA if there is one, else CPU) or any torch device name.
        batch_size: images in one forward pass.
        hint: what to do when the directory is missing; ends the error message.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    def __init__(
        self,
        *,
        filepath: str,
        device: str = "auto",
        batch_size: int = 32,
        hint: str = "Put an image classifier there, see docs/explanation/judges.md.",
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = location(filepath, credentials, fs_args)
        self._device = device
        self._batch_size = batch_size
        self._hint = hint
        self.metadata = metadata

    @builds_models
    def load(self) -> ImageClassifier:
        """Load the classifier onto its device.

        Raises:
            DatasetError: there is no whole image classifier at ``filepath``.
        """
        if not self._exists():
            raise DatasetError(
                f"no image classifier at {self._filepath} ({CONFIG_FILE} is not there). "
                f"{self._hint}"
            )
        from safetydpo_kedro.metrics.classifier import ImageClassifier

        device = device_named(self._device)
        try:
            return ImageClassifier.from_directory(
                local_copy(self._filepath), device=device, batch_size=self._batch_size
            )
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def save(self, data: None) -> NoReturn:
        """Classifiers are only read.

        Raises:
            DatasetError: always.
        """
        raise DatasetError(f"{self._filepath} is read, and not written")

    def _exists(self) -> bool:
        return (self._filepath / CONFIG_FILE).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "device": self._device}
