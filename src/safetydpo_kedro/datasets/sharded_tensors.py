"""Sharded named tensors, such as cached latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetydpo_kedro.datasets.sharded import ShardedDataset
from safetydpo_kedro.datasets.tensors import load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor


class ShardedSafetensorsDataset(ShardedDataset["dict[str, Tensor]"]):
    """A folder of safetensors shards, loaded as one dict of tensors.

    Each shard is ``dict[str, Tensor]``, all with the same names; tensors of one name are
    concatenated along their first dimension. A single shard is not copied but memory-mapped.

    Example:
        .. code-block:: yaml

            latent_cache:
              type: safetydpo_kedro.datasets.ShardedSafetensorsDataset
              path: data/05_model_input/latent_cache
    """

    suffix = ".safetensors"

    def _write(self, shard: dict[str, Tensor], path: Path) -> None:
        save_tensors(shard, path)

    def _read(self, paths: list[Path]) -> dict[str, Tensor]:
        import torch

        shards = [load_tensors(path)[0] for path in paths]
        if len(shards) == 1:
            return shards[0]
        for path, shard in zip(paths, shards, strict=True):
            if shard.keys() != shards[0].keys():
                raise ValueError(
                    f"shard {path} holds {sorted(shard)}, but {paths[0]} holds {sorted(shards[0])}"
                )
        return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
