"""Speed and memory of a training step: the project against the reference recipe.

Run ``python -m benchmarks.training_step``; it prints Markdown. Both recipes train the same adapter
on the same random weights, pairs, noise and timesteps, each in a process of its own. They step in
turns, so a busy machine slows both, and the speed-up is the median over pairs of steps.

*project*: latents and embeddings are cached, one UNet, the adapter switched off as the reference.
*reference*: as Diffusion-DPO trainers do it: every step encodes both images and the prompt, and a
second UNet is the reference.

Without a CUDA device, SD 1.5 at 256 px stands for all. With one, SD 1.5 and SDXL train at their own
resolutions, and sampling is timed too.
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from torch import nn

from benchmarks.architectures import random_pipeline
from benchmarks.recipes import second_model, two_unet_loss, update
from benchmarks.training_memory import GIB, table
from safetydpo_kedro.diffusion.adapters import checkpointed_activations, trainable_adapter
from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import (
    ExpertTrainingParameters,
    NoiseParameters,
    SamplingParameters,
)
from safetydpo_kedro.preference.batches import Rows, training_rows
from safetydpo_kedro.preference.data import TrainingData
from safetydpo_kedro.preference.inputs import Inputs
from safetydpo_kedro.preference.latents import encode_pairs
from safetydpo_kedro.preference.noise import keyed_draws
from safetydpo_kedro.preference.objective import Objective, Part
from safetydpo_kedro.preference.optimizers import make_optimizer

WARMUP, ROUNDS = 1, 4  # steps
PAIRS = 4  # in the data set
SAMPLING = SamplingParameters(steps=20, guidance_scale=7.5, batch_size=4)
# The adapter is moved away from the base model, where every loss is ln 2, and β keeps the losses
# of random weights near it: so they differ from step to step and can be compared.
ADAPTER_NOISE, BETA = 0.1, 1000.0
# Relative, of losses in float32; bfloat16 rounds more than an adapter changes on random weights.
TOLERANCE = 1e-3
PARAMETERS = ExpertTrainingParameters(strategy="unsafe_prompt", beta=BETA, batch_size=1)
DRAWS = NoiseParameters(caption_dropout=0.0)
RECIPES = ("reference", "project")


@dataclass(frozen=True)
class Setting:
    """What is trained, and where.

    Attributes:
        family: of the architecture.
        resolution: side of the images.
        device: torch device.
        precision: of the base weights.
        checkpointing: of activations.
        tiny: the narrow architecture, for tests.
    """

    family: str
    resolution: int
    device: str
    precision: torch.dtype
    checkpointing: bool = False
    tiny: bool = False


CPU_SETTINGS = (Setting("sd15", 256, "cpu", torch.float32),)
CUDA_SETTINGS = (
    Setting("sd15", 512, "cuda", torch.bfloat16),
    Setting("sdxl", 1024, "cuda", torch.bfloat16, checkpointing=True),
)


@dataclass(frozen=True)
class Data:
    """Pairs of random images, with prompts."""

    winners: np.ndarray
    losers: np.ndarray
    unsafe: list[str]
    safe: list[str]

    @classmethod
    def random(cls, resolution: int) -> Data:
        """The same at every call."""
        draw = np.random.default_rng(0).integers
        images = draw(0, 256, (2, PAIRS, resolution, resolution, 3), dtype=np.uint8)
        colours = ("red", "blue", "green", "grey")
        unsafe = [f"knife on a {colours[i % 4]} background" for i in range(PAIRS)]
        return cls(*images, unsafe, [prompt.replace("knife", "spoon") for prompt in unsafe])


NextInputs = Callable[[Rows, int], Inputs]


def project_inputs(model: DiffusionModel, data: Data) -> NextInputs:
    """The trainer's own inputs, from its cache."""
    columns = data.winners, data.losers, data.unsafe, data.safe
    pairs = encode_pairs(model, *columns, ids=range(PAIRS), batch_size=1)
    objective = Objective(model, TrainingData(pairs), DRAWS, PARAMETERS)
    return lambda rows, step: objective.inputs(Part(step, rows))


def reference_inputs(model: DiffusionModel, data: Data) -> NextInputs:
    """Images and prompts are encoded whenever they come."""

    @torch.no_grad()
    def inputs(rows: Rows, step: int) -> Inputs:
        chosen = rows.pairs.numpy()
        images = np.concatenate([data.winners[chosen], data.losers[chosen]])
        mean, std = model.encode_images(images)
        draws = keyed_draws(
            DRAWS.seed, rows.pairs, rows.draws, mean.shape[1:], model.train_timesteps
        )
        twice = [t.repeat(2, *[1] * (t.ndim - 1)).to(model.device) for t in draws[:3]]
        posterior, noise, timesteps = twice
        latents = mean + std * posterior
        captions = model.encode_prompts([data.unsafe[i] for i in chosen])
        captions = Conditioning.join(captions, captions)
        return Inputs(
            noisy=model.add_noise(latents, noise, timesteps),
            target=model.target(latents, noise, timesteps),
            timesteps=timesteps,
            captions=captions,
            safe=captions,
            unsafe=rows.unsafe.to(model.device),
        )

    return inputs


class Step(NamedTuple):
    """One training step: how long it took, and its loss."""

    seconds: float
    loss: float


class Training:
    """A recipe, ready to step.

    Args:
        recipe: one of :data:`RECIPES`.
        setting: what is trained.

    Attributes:
        preparation: seconds per pair that were spent once, before the first step.
    """

    def __init__(self, recipe: str, setting: Setting) -> None:
        diffusers.logging.set_verbosity_error()
        pipeline = random_pipeline(setting.family, setting.tiny)
        self.setting = setting
        self.model = diffusion_model(pipeline.to(setting.device, setting.precision))
        self.frozen = second_model(self.model) if recipe == "reference" else None
        make_inputs = reference_inputs if self.frozen else project_inputs
        started = now(setting)
        self.next_inputs = make_inputs(self.model, Data.random(setting.resolution))
        self.preparation = (now(setting) - started) / PAIRS
        self.objective = Objective(self.model, TrainingData(None), DRAWS, PARAMETERS)
        self.adapter = ExitStack()  # the adapter lives as long as this
        unet = self.model.unet
        self.weights = self.adapter.enter_context(
            trainable_adapter(unet, PARAMETERS.lora, PARAMETERS.seed)
        )
        self.adapter.enter_context(checkpointed_activations(unet, setting.checkpointing))
        roughen(self.weights)
        self.optimizer = make_optimizer(self.weights, PARAMETERS)

    def step(self, number: int) -> Step:
        """Train on the pair of step ``number``."""
        started = now(self.setting)
        chosen = training_rows(number, 1, PAIRS, PARAMETERS.strategy, None, PARAMETERS.seed)
        inputs = self.next_inputs(chosen, number)
        if self.frozen:
            loss = two_unet_loss(self.model, self.frozen, inputs, BETA)
        else:
            loss, _ = self.objective.loss(inputs)
        update(loss, self.weights, self.optimizer, PARAMETERS)
        value = float(loss.detach())
        return Step(now(self.setting) - started, value)


def roughen(weights: list[nn.Parameter]) -> None:
    """Move a fresh adapter away from the base model, the same way at every call."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights:
            weight += ADAPTER_NOISE * torch.randn(weight.shape, generator=generator).to(weight)


def sampling_speed(model: DiffusionModel, setting: Setting) -> float:
    """Images per second of one batch, after one that warms up."""
    parameters = SAMPLING.model_copy(update={"resolution": setting.resolution})
    prompts, seeds = ["spoon"] * SAMPLING.batch_size, range(SAMPLING.batch_size)
    model.sample(prompts, seeds, parameters)
    started = now(setting)
    model.sample(prompts, seeds, parameters)
    return len(prompts) / (now(setting) - started)


def now(setting: Setting) -> float:
    """Seconds, once the device is idle."""
    if setting.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(setting: Setting) -> int:
    """Most bytes that this process has held."""
    if setting.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


class Worker:
    """A :class:`Training` in a process of its own, so that peaks do not mix."""

    _training: Training  # of the process

    def __init__(self, recipe: str, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self.process = ProcessPoolExecutor(1, mp_context=context)
        self.preparation: float = self._run(Worker._begin, recipe, setting)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.process.submit(function, *arguments).result()

    def step(self, number: int) -> Step:
        """See :meth:`Training.step`."""
        return self._run(Worker._step, number)

    def finish(self) -> tuple[int, float | None]:
        """Peak bytes of training, images per second of sampling on a GPU; ends the process."""
        result = self._run(Worker._finish)
        self.process.shutdown()
        return result

    @classmethod
    def _begin(cls, recipe: str, setting: Setting) -> float:
        cls._training = Training(recipe, setting)
        return cls._training.preparation

    @classmethod
    def _step(cls, number: int) -> Step:
        return cls._training.step(number)

    @classmethod
    def _finish(cls) -> tuple[int, float | None]:
        training = cls._training
        peak = peak_memory(training.setting)
        training.adapter.close()
        on_device = training.setting.device == "cuda"
        return peak, sampling_speed(training.model, training.setting) if on_device else None


def comparable(project: Sequence[float], reference: Sequence[float]) -> bool:
    """Whether two recipes computed the same losses, and losses that could have differed."""
    informative = any(abs(loss - math.log(2)) > 10 * TOLERANCE for loss in reference)
    return informative and disagreement(project, reference) <= TOLERANCE


def disagreement(project: Sequence[float], reference: Sequence[float]) -> float:
    """Largest relative difference of some losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(project, reference, strict=True))


def run(setting: Setting) -> tuple[dict[str, Worker], dict[str, list[Step]]]:
    """Both recipes, step by step in turns; without the steps that warm up."""
    workers = {recipe: Worker(recipe, setting) for recipe in RECIPES}
    steps = [
        {recipe: worker.step(number) for recipe, worker in workers.items()}
        for number in range(WARMUP + ROUNDS)
    ]
    return workers, {recipe: [step[recipe] for step in steps[WARMUP:]] for recipe in RECIPES}


def losses_of(setting: Setting, steps: dict[str, list[Step]]) -> dict[str, list[float]]:
    """Losses in float32 of both recipes: of these steps, or of others where they are not."""
    if setting.precision != torch.float32:
        workers, steps = run(replace(setting, precision=torch.float32))
        for worker in workers.values():
            worker.finish()
    return {recipe: [step.loss for step in steps[recipe]] for recipe in RECIPES}


def rows(setting: Setting) -> list[list[str]]:
    """A row of the table for each recipe."""
    workers, steps = run(setting)
    finished = {recipe: worker.finish() for recipe, worker in workers.items()}
    losses = losses_of(setting, steps)
    counts = comparable(losses["project"], losses["reference"])
    pairs = zip(steps["reference"], steps["project"], strict=True)
    speedup = median(reference.seconds / project.seconds for reference, project in pairs)
    table_rows = []
    for recipe in RECIPES:
        seconds = median(step.seconds for step in steps[recipe])
        peak, images_per_second = finished[recipe]
        project = recipe == "project"
        table_rows.append(
            [
                setting.family,
                str(setting.resolution),
                str(setting.precision).removeprefix("torch."),
                recipe,
                f"{seconds:.2f}",
                f"{1 / seconds:.3f}",
                f"{peak / GIB:.2f}",
                f"{workers[recipe].preparation:.2f}" if project else "none",
                (f"{speedup:.2f}" if counts else "does not count") if project else "1",
                f"{disagreement(losses['project'], losses['reference']):.0e}",
                f"{images_per_second:.2f}" if images_per_second else "not measured",
            ]
        )
    return table_rows


def main() -> None:
    on_device = torch.cuda.is_available()
    settings = CUDA_SETTINGS if on_device else CPU_SETTINGS
    name = torch.cuda.get_device_name() if on_device else f"{torch.get_num_threads()} CPU cores"
    table(
        f"Training step, one pair, {name}",
        "model | pixels | precision | recipe | s per step | pairs per s | peak GiB | "
        "cache, s per pair, once | speed-up | losses differ by | images per s",
        [row for setting in settings for row in rows(setting)],
    )


if __name__ == "__main__":
    main()
