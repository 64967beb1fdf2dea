"""Two processes that share every step train what one trains."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from safetydpo_kedro.parameters import CheckpointParameters
from safetydpo_kedro.preference.processes import launch
from safetydpo_kedro.preference.trainer import TrainingRun, train_expert

from .test_trainer import LOOKS, NOISE, PARAMETERS, changed, held_out, train

SHARED = {"num_processes": 2, "validation": LOOKS}


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(model, data, tmp_path):
    data, steps = held_out(data), []
    one = train(model, data, tmp_path / "one", changed(validation=LOOKS))
    two = train(
        model,
        data,
        tmp_path / "two",
        changed(**SHARED),
        on_step=lambda step, metrics: steps.append((step, metrics["loss"])),
    )
    columns = ["loss", "implicit_accuracy", "gradient_norm", "held_out_loss", "preservation_loss"]
    np.testing.assert_allclose(
        two.history[columns], one.history[columns], rtol=2e-4, atol=1e-6, equal_nan=True
    )
    assert steps == list(two.history[["step", "loss"]].itertuples(index=False, name=None))
    for name, layer in one.adapter.layers.items():
        torch.testing.assert_close(
            two.adapter.layers[name].delta(), layer.delta(), rtol=1e-2, atol=1e-4
        )
    assert list(two.images) == [0, 2, 4, 6]
    # The checkpoints are one process's as well as two's.
    again = TrainingRun("expert", data, NOISE, changed(validation=LOOKS), tmp_path / "two")
    assert train_expert(model, again).history.equals(two.history)


def complain(processes, send):
    if processes.rank == 1:
        raise ValueError("the second process has had enough")


@pytest.mark.slow
def test_an_error_in_a_process_ends_all_of_them():
    with pytest.raises(ProcessRaisedException, match="has had enough"):
        launch(complain, (), 2, on_message=print, use_cpu=True)


def count_up(processes, send):
    number = 0
    while True:  # a process that is not ended here never ends
        send((number, os.getpid()))
        number += 1
        time.sleep(0.05)


@pytest.mark.slow
def test_processes_do_not_outlive_who_waits_for_them():
    seen = set()

    def stop(message):
        seen.add(message[1])
        if message[0] > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(count_up, (), 2, on_message=stop, use_cpu=True)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in seen) and time.monotonic() < deadline:
        multiprocessing.active_children()  # joins those that have ended
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in seen)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there are as many GPUs")
def test_more_processes_than_gpus_are_refused():
    with pytest.raises(ValueError, match=r"num_processes is 2, but there are \d GPUs"):
        launch(complain, (), 2, on_message=print, use_cpu=False)


def test_checkpoints_are_no_part_of_what_a_run_is():
    assert (
        PARAMETERS.model_dump()
        == changed(num_processes=2, checkpoints=CheckpointParameters(every=1)).model_dump()
    )
