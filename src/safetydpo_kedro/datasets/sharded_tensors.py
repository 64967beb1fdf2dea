"""Sharded named tensors, such as cached latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetydpo_kedro.datasets.previews import TablePreview, preview_tensors
from safetydpo_kedro.datasets.sharded import ShardedDataset
from safetydpo_kedro.datasets.tensors import load_tensors, save_tensors
from safetydpo_kedro.storage import Location, local_copy

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.stacked import StackedRows


class ShardedSafetensorsDataset(ShardedDataset["dict[str, Tensor]"]):
    """A folder of safetensors shards, loaded as one dict of tensors.

    Each shard is ``dict[str, Tensor]``, all with the same names; tensors of one name are
    concatenated along their first dimension.

    Example:
        .. code-block:: yaml

            latent_cache:
              type: safetydpo_kedro.datasets.ShardedSafetensorsDataset
              path: data/05_model_input/latent_cache
              mapped: true

    Args:
        path: the folder.
        mapped: leave the shards memory-mapped: what is loaded are ``StackedRows``, of which only
            the rows in use are read.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    suffix = ".safetensors"

    def __init__(
        self,
        *,
        path: str,
        mapped: bool = False,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(path=path, credentials=credentials, fs_args=fs_args, metadata=metadata)
        self._mapped = mapped

    def preview(self) -> TablePreview:
        """Names, shapes and dtypes in the first shard, for Kedro-Viz."""
        return preview_tensors(local_copy(self.shard_paths()[0]))

    def _write(self, shard: dict[str, Tensor], path: Path) -> None:
        save_tensors(shard, path)

    def _read(self, paths: list[Location]) -> dict[str, Tensor | StackedRows]:
        import torch

        from safetydpo_kedro.stacked import StackedRows

        shards = [load_tensors(local_copy(path))[0] for path in paths]
        for path, shard in zip(paths, shards, strict=True):
            if shard.keys() != shards[0].keys():
                raise ValueError(
                    f"shard {path} holds {sorted(shard)}, but {paths[0]} holds {sorted(shards[0])}"
                )
        join = StackedRows if self._mapped else torch.cat
        return {name: join([shard[name] for shard in shards]) for name in shards[0]}
