"""Training of one safety expert with Direct Preference Optimization (SafetyDPO, section 3.2).

What a step minimizes is in :mod:`~safetydpo_kedro.preference.objective`, the steps themselves are
in :mod:`~safetydpo_kedro.preference.loop`; here is what a run consists of, and where it runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetydpo_kedro.checkpoints import Checkpoints
from safetydpo_kedro.diffusion.adapters import (
    checkpointed_activations,
    compiled_blocks,
    extract_adapter,
    fused,
    trainable_adapter,
)
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.lora_keys import adapter_state_dict
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.digests import tensors_digest
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.preference.data import TrainingData
from safetydpo_kedro.preference.loop import Loop, OnStep
from safetydpo_kedro.preference.objective import Objective
from safetydpo_kedro.preference.processes import Processes, launch
from safetydpo_kedro.preference.trained import TrainedExpert
from safetydpo_kedro.preference.validation import Validation


@dataclass(frozen=True)
class TrainingRun:
    """Everything that says what is trained, and how; it can be sent to another process.

    Attributes:
        name: of the expert, shown in the progress bar.
        data: of the expert.
        noise: draws and caption dropout.
        parameters: of the training.
        folder: of its checkpoints, of this expert alone.
        metadata: travels with the adapter.
        foundation: an adapter that the expert is trained on top of: the reference is the model
            with it, and the expert holds only what comes on top.
    """

    name: str
    data: TrainingData
    noise: NoiseParameters
    parameters: ExpertTrainingParameters
    folder: Path
    metadata: Mapping[str, str] = field(default_factory=dict)
    foundation: LoraAdapter | None = None

    def __post_init__(self) -> None:
        """Refuse data that cannot be trained on."""
        if len(self.data.pairs) == 0:
            raise ValueError(
                f"{self.name}: there are no training pairs; check train_pairs and its category"
            )
        if self.parameters.preservation.weight and "neutral" not in self.data.preserved:
            raise ValueError(
                f"{self.name}: preservation.weight > 0 needs a 'neutral' pool of images"
            )

    def checkpoints(self, model: DiffusionModel) -> Checkpoints:
        """The run's checkpoints; those of another configuration, model or data refuse."""
        p, data = self.parameters, self.data
        preserved = {
            f"{pool}/{name}": tensor
            for pool, images in data.preserved.items()
            for name, tensor in images.to_tensors().items()
        }
        held_out = data.held_out.pairs.to_tensors() if data.held_out else {}
        foundation = adapter_state_dict(self.foundation) if self.foundation else {}
        identity = {
            "expert": self.name,
            # What memory there is decides these two. They change rounding, and nothing else.
            "expert_training": p.model_dump(
                mode="json", exclude={"micro_batch_size", "gradient_checkpointing"}
            ),
            "noise": self.noise,
            "base model": tensors_digest(model.unet.state_dict()),
            "training pairs": tensors_digest(data.pairs.to_tensors()),
            "held-out pairs": tensors_digest(held_out),
            "preserved images": tensors_digest(preserved),
            "foundation": tensors_digest(foundation),
        }
        key = f"{self.name}.expert_training.checkpoints.resume"
        remedy = f"set {key} to false, or delete {self.folder}"
        checkpoints = Checkpoints(self.folder, identity, p.checkpoints.keep, remedy)
        if not p.checkpoints.resume:
            checkpoints.clear()
        return checkpoints


def train_expert(
    model: DiffusionModel, run: TrainingRun, on_step: OnStep | None = None
) -> TrainedExpert:
    """Train a safety expert; go on from the run's checkpoint if there is one.

    The model's own weights stay as they are, and the adapter is gone from it afterwards. The last
    checkpoint stays too, until the caller has the expert on disk and removes ``run.folder``.

    Args:
        model: the model that is to be aligned.
        run: what is trained, and how.
        on_step: called with every step's number, from 1, and its metrics.

    Raises:
        ChangedIdentityError: the checkpoint is of another configuration, model or data.
        NonFiniteError: more steps than ``nonfinite_steps`` had a loss or gradient that is not
            finite.
        ValueError: fewer GPUs than ``num_processes``.
    """
    checkpoints = run.checkpoints(model)
    on_step = on_step or (lambda step, metrics: None)
    count = run.parameters.num_processes
    if count == 1:
        return _train(model, run, checkpoints, Processes(), on_step)
    device = model.device
    with tempfile.TemporaryDirectory() as folder:
        try:
            launch(
                _train_part,
                (model.on("cpu"), run, checkpoints, Path(folder)),
                count,
                on_message=lambda message: on_step(*message),
                use_cpu=device.type == "cpu",
            )
        finally:
            model.on(device)
        return TrainedExpert.read(Path(folder))


def _train_part(
    processes: Processes,
    send: Callable[[Any], None],
    model: DiffusionModel,
    run: TrainingRun,
    checkpoints: Checkpoints,
    folder: Path,
) -> None:
    """What one of several processes does; the first one writes the result."""
    assert processes.device is not None  # as launch() gives every process one
    model = model.on(processes.device)
    trained = _train(model, run, checkpoints, processes, lambda *step: send(step))
    if processes.is_main:
        trained.write(folder)


def _train(
    model: DiffusionModel,
    run: TrainingRun,
    checkpoints: Checkpoints,
    processes: Processes,
    on_step: OnStep,
) -> TrainedExpert:
    p = run.parameters
    model.place_unet()
    with fused(model.unet, run.foundation):
        validation = None
        if run.data.held_out and p.validation.every and processes.is_main:
            validation = Validation(model, run.data.held_out, run.noise, p)
        objective = Objective(model, run.data, run.noise, p)
        with (
            trainable_adapter(model.unet, p.lora, p.seed) as weights,
            checkpointed_activations(model.unet, p.gradient_checkpointing),
            compiled_blocks(model.unet, p.compile),
        ):
            loop = Loop(run.name, objective, weights, checkpoints, validation, processes, on_step)
            loop.run()
            adapter = extract_adapter(model.unet, dict(run.metadata))
    return TrainedExpert(adapter, loop.history.table(), loop.images)
