"""What the training of an expert gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.lora_files import load_adapter, save_adapter

ADAPTER, HISTORY, IMAGES = "adapter.safetensors", "history.parquet", "images.safetensors"


@dataclass(frozen=True)
class TrainedExpert:
    """An expert and how it came to be.

    Attributes:
        adapter: the expert.
        history: one row per optimizer step; see :mod:`safetydpo_kedro.preference.history`.
        images: step → held-out prompts as drawn after it, uint8 ``[N, H, W, 3]``; step 0 is the
            model before training.
    """

    adapter: LoraAdapter
    history: pd.DataFrame
    images: dict[int, Tensor] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write everything into a folder, for another process."""
        save_adapter(self.adapter, folder / ADAPTER)
        self.history.to_parquet(folder / HISTORY)
        save_file({str(step): images for step, images in self.images.items()}, folder / IMAGES)

    @classmethod
    def read(cls, folder: Path) -> TrainedExpert:
        """The inverse of :meth:`write`."""
        images = {int(step): value for step, value in load_file(folder / IMAGES).items()}
        history = pd.read_parquet(folder / HISTORY)
        return cls(load_adapter(folder / ADAPTER), history, dict(sorted(images.items())))
