"""A training that runs out of memory says what to do, and goes on once that has been done."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from safetydpo_kedro.memory import is_out_of_memory
from safetydpo_kedro.parameters import (
    CheckpointParameters,
    ExpertTrainingParameters,
    LoraParameters,
    NoiseParameters,
)
from safetydpo_kedro.preference.trainer import TrainingRun, train_expert

PARAMETERS = ExpertTrainingParameters(
    lora=LoraParameters(rank=2, target_modules=["to_k"]),
    steps=3,
    batch_size=512,
    checkpoints=CheckpointParameters(every=1),
)
SPARE = 2**24  # bytes that a step may take beside what the process has: too few for 512 pairs


def memory_of_this_process() -> int:
    """Bytes of its address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_training_without_memory_says_how_to_need_less_and_goes_on(model, data, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_AS)
    steps: list[int] = []

    def train(**changes):
        parameters = PARAMETERS.model_copy(update=changes)
        run = TrainingRun("hate", data, NoiseParameters(), parameters, tmp_path / "hate")
        return train_expert(model, run, lambda step, _: (steps.append(step), after(step)))

    def after(step):
        if step == 1:
            resource.setrlimit(resource.RLIMIT_AS, (memory_of_this_process() + SPARE, limits[1]))

    try:
        with pytest.raises(MemoryError) as error:
            train()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    for part in (
        "hate: out of memory on cpu in step 2 of 3",
        "lower micro_batch_size (pairs per forward, now 512)",
        "set gradient_checkpointing to true",
        "It goes on from",
        "step-000001",
    ):
        assert part in str(error.value)
    train(micro_batch_size=2, gradient_checkpointing=True)
    assert steps == [1, 2, 3]


def test_only_memory_that_runs_out_is_taken_for_that():
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60)
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(other.value)
