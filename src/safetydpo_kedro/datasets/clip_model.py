"""An open_clip model directory as a catalog entry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.datasets.devices import device_named
from safetydpo_kedro.storage import local_copy, location, replace_folder, staging_folder
from safetydpo_kedro.threads import builds_models

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from safetydpo_kedro.metrics.clip import ClipModel

CONFIG_FILE = "open_clip_config.json"


class ClipModelDataset(
    AbstractDataset["tuple[nn.Module, dict[str, Any], PreTrainedTokenizerBase]", "ClipModel"]
):
    """Loads a local open_clip directory as a ``ClipModel``; safetensors weights only.

    Saves a triple of model, open_clip configuration and tokenizer; a directory with the
    configuration file is whole.

    Example:
        .. code-block:: yaml

            judge_clip:
              type: safetydpo_kedro.datasets.ClipModelDataset
              filepath: data/01_raw/judge_clip

    Args:
        filepath: the directory (the one with ``open_clip_config.json``).
        device: ``auto`` (CUDA if there is one, else CPU) or any torch device name.
        precision: ``fp32``, ``fp16`` or ``bf16``.
        batch_size: images or texts in one forward pass.
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
        precision: str = "fp32",
        batch_size: int = 64,
        hint: str = "Put an open_clip model there, or name another directory in the catalog.",
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = location(filepath, credentials, fs_args)
        self._device = device
        self._precision = precision
        self._batch_size = batch_size
        self._hint = hint
        self.metadata = metadata

    @property
    def fingerprint_options(self) -> dict[str, Any]:
        """What else, beside the content, changes the results of a node that loads this entry."""
        return {"precision": self._precision}

    @builds_models
    def load(self) -> ClipModel:
        """Load the model onto its device.

        Raises:
            DatasetError: there is no open_clip model at ``filepath``.
        """
        if not self._exists():
            raise DatasetError(
                f"no open_clip model at {self._filepath} ({CONFIG_FILE} is not there). {self._hint}"
            )
        from safetydpo_kedro.metrics.clip import ClipModel

        return ClipModel.from_directory(
            local_copy(self._filepath),
            device=device_named(self._device),
            precision=self._precision,
            batch_size=self._batch_size,
        )

    def save(self, data: tuple[nn.Module, dict[str, Any], PreTrainedTokenizerBase]) -> None:
        """Write model, configuration and tokenizer into a staged directory, then move it there."""
        from safetydpo_kedro.metrics.clip import save_open_clip_directory

        model, config, tokenizer = data
        with tempfile.TemporaryDirectory() as folder, staging_folder(self._filepath) as staging:
            tokenizer.save_pretrained(folder)
            staged = Path(staging) / self._filepath.name
            save_open_clip_directory(model, config, Path(folder), staged)
            replace_folder(staged, self._filepath, last=CONFIG_FILE)

    def _exists(self) -> bool:
        return (self._filepath / CONFIG_FILE).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "device": self._device, "precision": self._precision}
