"""A training in a process of its own, so that the memory of several does not mix."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from benchmarks.models import load_pipeline, silence
from benchmarks.recipes import RECIPES, Images, update
from benchmarks.timing import now
from safetydpo_kedro.diffusion.adapters import checkpointed_activations, trainable_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.preference.optimizers import make_optimizer

# The adapter is moved away from the base model, where every loss is ln 2, and β keeps the losses
# of random weights near it: so they differ from step to step and can be compared.
ADAPTER_NOISE, BETA = 0.1, 1000.0
# One draw per pair, so that the errors of the reference come back.
DRAWS = NoiseParameters(draws=1, caption_dropout=0.0)


@dataclass(frozen=True)
class Setting:
    """What is trained, and where.

    Attributes:
        model: see :func:`~benchmarks.models.load_pipeline`.
        resolution: side of the images.
        pairs: in every step, all in one forward.
        device: torch device.
        precision: of the base weights.
        rounds: that count; one more comes before them.
        checkpointing: of activations.
        tiny: the narrow architecture, for tests.
    """

    model: str
    resolution: int
    pairs: int = 1
    device: str = "cpu"
    precision: torch.dtype = torch.float32
    rounds: int = 4
    checkpointing: bool = False
    tiny: bool = False

    @property
    def data(self) -> int:
        """Pairs in the data set."""
        return max(4, 2 * self.pairs)


class Step(NamedTuple):
    """One training step: how long it took, and its loss."""

    seconds: float
    loss: float


class Totals(NamedTuple):
    """What is known of a training at its end. An operation is a multiplication or an addition.

    Attributes:
        peak: most bytes that its process has held.
        operations: of a step: encoding, forwards, backward pass.
        unet: those of the UNet; what checkpointing does again is among them.
    """

    peak: int
    operations: int
    unet: int


class Training:
    """A recipe, ready to step.

    Args:
        recipe: one of :data:`RECIPES`.
        setting: what is trained.

    Attributes:
        preparation: seconds per pair that were spent once, before the first step.
    """

    def __init__(self, recipe: str, setting: Setting) -> None:
        silence()
        pipeline = load_pipeline(setting.model, setting.device, setting.precision, setting.tiny)
        model = diffusion_model(pipeline)
        images = Images.random(setting.resolution, setting.data)
        self.parameters = ExpertTrainingParameters(
            strategy="unsafe_prompt", beta=BETA, batch_size=setting.pairs
        )
        started = now()
        self.recipe = RECIPES[recipe](model, images, DRAWS, self.parameters)
        self.preparation = (now() - started) / setting.data
        self.adapter = ExitStack()  # the adapter lives as long as this
        self.weights = self.adapter.enter_context(
            trainable_adapter(model.unet, self.parameters.lora, self.parameters.seed)
        )
        self.adapter.enter_context(checkpointed_activations(model.unet, setting.checkpointing))
        roughen(self.weights)
        self.optimizer = make_optimizer(self.weights, self.parameters)

    def step(self, number: int) -> Step:
        """Train on the pairs of step ``number``."""
        started = now()
        loss = self.recipe.loss(self.recipe.inputs(number))
        update(loss, self.weights, self.optimizer, self.parameters)
        value = float(loss.detach())
        return Step(now() - started, value)

    def totals(self) -> Totals:
        """Memory so far, and the operations of one more step; it is the last."""
        peak = peak_memory()
        with operation_counter() as encoding:
            inputs = self.recipe.inputs(0)
        with operation_counter() as unet:
            self.recipe.loss(inputs).backward()
        self.adapter.close()
        counts = encoding.get_total_flops(), unet.get_total_flops()
        return Totals(peak, sum(counts), counts[1])


def roughen(weights: list[nn.Parameter]) -> None:
    """Move a fresh adapter away from the base model, the same way at every call."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in weights:
            weight += ADAPTER_NOISE * torch.randn(weight.shape, generator=generator).to(weight)


def peak_memory() -> int:
    """Most bytes that this process has held: on the accelerator, if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def operation_counter() -> FlopCounterMode:
    """PyTorch's counter, which knows the attention kernels of GPUs alone, with those of the CPU."""
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    formulas = {forward: _attention, backward: _attention_backward}
    return FlopCounterMode(display=False, custom_mapping=formulas)


class Worker:
    """A :class:`Training` in a process of its own; its arguments and attributes."""

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

    def finish(self) -> Totals:
        """See :meth:`Training.totals`; ends the process."""
        totals = self._run(Worker._totals)
        self.process.shutdown()
        return totals

    @classmethod
    def _begin(cls, recipe: str, setting: Setting) -> float:
        cls._training = Training(recipe, setting)
        return cls._training.preparation

    @classmethod
    def _step(cls, number: int) -> Step:
        return cls._training.step(number)

    @classmethod
    def _totals(cls) -> Totals:
        return cls._training.totals()
