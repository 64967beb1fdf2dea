"""Images per second with an adapter, and whether the way they are drawn changes them.

Run ``python -m benchmarks.sampling``; it prints Markdown. Ways are timed in turns, on the same
device, prompts and seeds:

*project*: :meth:`DiffusionModel.sample`: several images at once, the adapter fused into the
weights; the time includes fusing and undoing it.
*one by one*: the usual script: a stock diffusers pipeline with ``load_lora_weights``, called once
per prompt; the time leaves out that the adapter is loaded.

Both compute all that the model asks for, in the same precision: no step is skipped, and nothing
is cached or merged. Without a CUDA device, SD 1.5 draws small images in few steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DiffusionPipeline

from benchmarks.models import PICTOGRAMS, load_pipeline, silence
from benchmarks.tables import machine, name_of, table
from benchmarks.timing import Timed, in_turns, speedup, timed
from safetydpo_kedro.diffusion.adapters import fused
from safetydpo_kedro.diffusion.lora import LoraAdapter, random_adapter
from safetydpo_kedro.diffusion.lora_files import save_adapter
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import LoraParameters, SamplingParameters
from safetydpo_kedro.pictograms.captions import all_captions

OFFICIAL, BASE = "one by one", "project, no adapter"


@dataclass(frozen=True)
class Setting:
    """What is drawn, and where.

    Attributes:
        model: see :func:`~benchmarks.models.load_pipeline`.
        images: in every round.
        batches: images that the project draws at once, each a way of its own; the first is what
            the images of the others are compared with.
        sampling: steps, guidance and resolution.
        device: torch device.
        precision: of the weights.
        rounds: that count; one more comes before them.
        strength: of the adapter.
        tiny: the narrow architecture, for tests.
    """

    model: str
    images: int
    batches: tuple[int, ...]
    sampling: SamplingParameters
    device: str = "cpu"
    precision: torch.dtype = torch.float32
    rounds: int = 4
    strength: float = 0.1
    tiny: bool = False


QUICK = SamplingParameters(steps=10, guidance_scale=3.0)  # as conf/base draws pictograms
SHORT = SamplingParameters(steps=2, guidance_scale=7.5, resolution=128)
FULL = SamplingParameters(steps=50, guidance_scale=7.5)
CPU_SETTINGS = (
    Setting(PICTOGRAMS, 64, (1, 3, 8, 64), QUICK),
    Setting("sd15", 8, (1, 3, 8), SHORT, rounds=3),
)
CUDA_SETTINGS = (
    Setting(PICTOGRAMS, 64, (1, 3, 8, 64), QUICK, "cuda"),
    Setting("sd15", 16, (1, 3, 8, 16), FULL, "cuda", torch.bfloat16),
    Setting("sdxl", 8, (1, 3, 8), FULL, "cuda", torch.bfloat16),
)


@dataclass
class Drawing:
    """The same weights, adapter, prompts and seeds, for every way of drawing."""

    setting: Setting
    model: DiffusionModel = field(init=False)
    stock: DiffusionPipeline = field(init=False)
    adapter: LoraAdapter = field(init=False)
    prompts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        captions, count = all_captions(), self.setting.images
        self.prompts = captions[:: len(captions) // count][:count]
        self.model = diffusion_model(self._pipeline())
        self.adapter = adapter_for(self.model, self.setting.strength)
        self.stock = self._pipeline()
        self.stock.set_progress_bar_config(disable=True)
        with tempfile.TemporaryDirectory() as folder:
            save_adapter(self.adapter, Path(folder) / "adapter.safetensors")
            self.stock.load_lora_weights(folder, weight_name="adapter.safetensors")

    def _pipeline(self) -> DiffusionPipeline:
        s = self.setting
        return load_pipeline(s.model, s.device, s.precision, s.tiny)

    def project(self, batch_size: int, adapter: LoraAdapter | None) -> np.ndarray:
        """Uint8 ``[N, H, W, 3]``."""
        parameters = self.setting.sampling.model_copy(update={"batch_size": batch_size})
        with fused(self.model.unet, adapter):
            return self.model.sample(self.prompts, range(len(self.prompts)), parameters)

    def one_by_one(self) -> np.ndarray:
        """Uint8 ``[N, H, W, 3]``."""
        sampling = self.setting.sampling
        images = [
            self.stock(
                prompt,
                height=sampling.resolution,
                width=sampling.resolution,
                generator=torch.Generator().manual_seed(seed),
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
            ).images[0]
            for seed, prompt in enumerate(self.prompts)
        ]
        return np.stack([np.asarray(image) for image in images])

    def ways(self) -> dict[str, Callable[[int], Timed]]:
        """By name, for :func:`in_turns`."""
        draw = {OFFICIAL: self.one_by_one}
        for size in self.setting.batches:
            draw[f"project, {size} at once"] = partial(self.project, size, self.adapter)
        return {name: lambda _, way=way: timed(way) for name, way in draw.items()}


def adapter_for(model: DiffusionModel, strength: float) -> LoraAdapter:
    """A random adapter on the layers that training adapts, the same at every call."""
    names = LoraParameters().target_modules
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in model.unet.named_modules()
        if name.endswith(names)
    }
    generator = torch.Generator().manual_seed(0)
    return random_adapter(shapes, LoraParameters().rank, generator).scaled(strength)


class Difference(NamedTuple):
    """How two sets of images differ.

    Attributes:
        levels: largest difference of a value, of 255.
        values: share of values that differ.
        images: number of images that differ.
        total: of images.
    """

    levels: int
    values: float
    images: int
    total: int

    def __str__(self) -> str:
        if not self.images:
            return "identical"
        return f"{self.levels} ({self.values:.3%} of values, {self.images} of {self.total} images)"


def difference(images: np.ndarray, others: np.ndarray) -> Difference:
    """Of uint8 ``[N, H, W, 3]``."""
    gap = np.abs(images.astype(int) - others)
    touched = gap.reshape(len(gap), -1).any(axis=1)
    return Difference(int(gap.max()), float((gap > 0).mean()), int(touched.sum()), len(gap))


def rows(setting: Setting) -> list[list[str]]:
    """A row of the table for each way; the last is the base model, to see what an adapter does."""
    drawing = Drawing(setting)
    runs = in_turns(drawing.ways(), setting.rounds)
    seconds = {name: [run.seconds for run in timings] for name, timings in runs.items()}
    images = {name: timings[-1].result for name, timings in runs.items()}
    first = f"project, {setting.batches[0]} at once"
    size = f"{images[first].shape[1]}"
    case = [setting.model, size, str(setting.sampling.steps), name_of(setting.precision)]
    table_rows = [
        [
            *case,
            name,
            f"{speedup(seconds[name], seconds[OFFICIAL]):.2f}",
            f"{setting.images / median(seconds[name]):.2f}",
            "" if name == first else str(difference(images[name], images[first])),
        ]
        for name in runs
    ]
    base = drawing.project(max(setting.batches), None)
    return [*table_rows, [*case, BASE, "", "", str(difference(base, images[first]))]]


def main() -> None:
    silence()
    settings = CUDA_SETTINGS if torch.cuda.is_available() else CPU_SETTINGS
    table(
        f"Sampling with an adapter, {machine()}",
        "model | pixels | steps | precision | way | speed-up | images per s | "
        "largest difference from one at once, of 255",
        (row for setting in settings for row in rows(setting)),
    )


if __name__ == "__main__":
    main()
