"""The network of FID as a catalog entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.artifacts import write_atomically
from safetydpo_kedro.datasets.devices import device_named
from safetydpo_kedro.datasets.tensors import save_tensors
from safetydpo_kedro.storage import local_copy, location
from safetydpo_kedro.threads import builds_models

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.metrics.inception import InceptionNetwork

HINT = (
    "`kedro run --pipelines judge_conversion` makes them of the published .pth file; or name "
    "another file in the catalog."
)


class InceptionDataset(AbstractDataset["dict[str, Tensor]", "InceptionNetwork"]):
    """Loads a local file as an ``InceptionNetwork``; saves the network's tensors as safetensors.

    Example:
        .. code-block:: yaml

            fid_network:
              type: safetydpo_kedro.datasets.InceptionDataset
              filepath: data/01_raw/real/inception.safetensors

    Args:
        filepath: a ``.safetensors`` file, or torch-fidelity's ``.pth``, of which nothing but
            tensors is unpickled.
        device: ``auto`` (CUDA if there is one, else CPU) or any torch device name.
        batch_size: images in one forward pass.
        hint: what to do when the file is missing; ends the error message.
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
        batch_size: int = 64,
        hint: str = HINT,
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
    def load(self) -> InceptionNetwork:
        """Load the network onto its device.

        Raises:
            DatasetError: there is no such file, or it holds another network.
        """
        if not self._exists():
            raise DatasetError(f"no Inception weights at {self._filepath}. {self._hint}")
        from safetydpo_kedro.metrics.inception import InceptionNetwork

        device = device_named(self._device)
        try:
            return InceptionNetwork(local_copy(self._filepath), device, self._batch_size)
        except ValueError as error:
            raise DatasetError(str(error)) from error

    def save(self, data: dict[str, Tensor]) -> None:
        """Write the network's tensors, as ``convert_inception`` gives them, atomically.

        Raises:
            DatasetError: the file's name does not end in ``.safetensors``.
        """
        if self._filepath.suffix != ".safetensors":
            raise DatasetError(f"{self._filepath} must be named *.safetensors to be written")
        with write_atomically(self._filepath) as temporary:
            save_tensors(data, temporary)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "device": self._device}
