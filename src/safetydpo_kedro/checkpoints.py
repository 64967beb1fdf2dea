"""Training states on disk, each whole or absent: a killed run goes on where it was.

A checkpoint is a folder, written beside its place and moved there in one step:

    step-000050/tensors.safetensors    modules, optimizer, random state: all tensors
    step-000050/state.json             step, identity, schedule, and what is no tensor
    step-000050/manifest.json          sizes and SHA-256 of the other two, package versions

So a kill at any moment leaves whole checkpoints and at most a hidden folder, which the next run
removes. What a disk or a hand damages later is seen by its hash. No file is a pickle.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from safetydpo_kedro.artifacts import Manifest, Provenance, file_digest, fingerprint, plain
from safetydpo_kedro.changes import list_changes
from safetydpo_kedro.packing import pack, unpack
from safetydpo_kedro.write_errors import explained

log = logging.getLogger(__name__)

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class ChangedIdentityError(ValueError):
    """A checkpoint is of a run with other parameters, other data or another model."""


@dataclass(frozen=True)
class Restored:
    """What :meth:`Checkpoints.restore` found.

    Attributes:
        step: optimizer steps done.
        state: the caller's own state, as it was saved.
        path: folder of the checkpoint.
    """

    step: int
    state: dict[str, Any]
    path: Path


class Checkpoints:
    """The last few training states of a run in one folder, each whole or absent.

    Args:
        folder: of this run alone.
        identity: all that the result depends on, as a JSON-like mapping (parameters, digests of
            data and model); compared field by field when a run goes on.
        keep: how many checkpoints stay, at least 1.
        remedy: how to start afresh, for the message to people whose run has changed, such as
            "delete the folder …", which is the default.

    Raises:
        ValueError: ``keep`` is less than 1.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        keep: int = 2,
        remedy: str | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: at least 1 checkpoint has to stay")
        self.folder = Path(folder)
        self.identity = json.loads(json.dumps(identity, default=plain))
        self.keep = keep
        self.remedy = remedy or f"delete the folder {folder}"

    @property
    def latest(self) -> Path | None:
        """Folder of the newest checkpoint that has a manifest, ``None`` if there is none."""
        return next((p for p in reversed(self._paths()) if (p / MANIFEST).is_file()), None)

    def save(
        self,
        step: int,
        modules: Mapping[str, nn.Module],
        optimizer: Optimizer,
        schedule: LRScheduler | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write the state after ``step`` optimizer steps; remove what is more than ``keep``.

        Checkpoints of this step and of later ones, which a run that fell back behind them may
        leave, go too.

        Args:
            step: optimizer steps done, 0 or more.
            modules: name → module whose parameters and buffers belong to the state.
            optimizer: state and hyperparameters of all its groups are kept.
            schedule: of the learning rate.
            state: the caller's own: nested dictionaries and lists of numbers, texts and tensors.

        Returns:
            Folder of the checkpoint.

        Raises:
            CannotWriteError: the disk is full, or must not be written to; the earlier checkpoints
                are as they were.
        """
        self._remove_leftovers()
        path = self.folder / f"step-{step:06d}"
        staging = path.with_name(f".{path.name}")
        try:
            with explained(path):
                staging.mkdir(parents=True)
                self._write(staging, step, modules, optimizer, schedule, state)
                for later in self._paths():
                    if _step(later) >= step:
                        self._remove(later)
                os.replace(staging, path)
                _sync(self.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        for old in self._paths()[: -self.keep]:
            self._remove(old)
        return path

    def restore(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: Optimizer,
        schedule: LRScheduler | None = None,
    ) -> Restored | None:
        """Put the newest whole checkpoint's state in place, that of random generators too.

        A damaged checkpoint is left out with a warning, for the one before it.

        Args:
            modules: as they were saved, on any device.
            optimizer: over the same parameters.
            schedule: of the learning rate.

        Returns:
            Step and own state of the checkpoint; ``None`` if there is no whole one.

        Raises:
            ChangedIdentityError: the checkpoint is of another identity; nothing is changed.
        """
        self._remove_leftovers()
        paths = self._paths()
        for path in reversed(paths):
            if reason := _damage(path):
                log.warning("Checkpoint %s is damaged (%s) and is left out", path, reason)
                continue
            form = json.loads((path / STATE).read_text(encoding="utf-8"))
            self._check_identity(form, path)
            # Not mapped from the file, which is removed while the tensors are in use.
            content = unpack(form["content"], load((path / TENSORS).read_bytes()))
            for name, module in modules.items():
                module.load_state_dict(content["modules"][name])
            optimizer.load_state_dict(content["optimizer"])
            if schedule is not None:
                schedule.load_state_dict(content["schedule"])
            _set_random_state(content["random"])
            return Restored(form["step"], content["state"], path)
        if paths:
            log.warning("No checkpoint in %s is whole: training starts afresh", self.folder)
        return None

    def clear(self) -> None:
        """Remove the folder with all checkpoints."""
        for path in self._paths():
            self._remove(path)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(
        self,
        folder: Path,
        step: int,
        modules: Mapping[str, nn.Module],
        optimizer: Optimizer,
        schedule: LRScheduler | None,
        state: Mapping[str, Any] | None,
    ) -> None:
        content = {
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimizer": optimizer.state_dict(),
            "schedule": None if schedule is None else schedule.state_dict(),
            "random": _random_state(),
            "state": dict(state or {}),
        }
        tensors: dict[str, Tensor] = {}
        form = {"step": step, "identity": self.identity, "content": pack(content, tensors)}
        # Clones, because safetensors refuses tensors that share memory (tied weights).
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        save_file(tensors, folder / TENSORS)
        (folder / STATE).write_text(json.dumps(form, indent=1) + "\n", encoding="utf-8")
        files = [folder / TENSORS, folder / STATE]
        provenance = Provenance(fingerprint(self.identity))
        Manifest.of(provenance, files, folder).write(folder / MANIFEST)
        for file in (*files, folder / MANIFEST, folder):
            _sync(file)

    def _check_identity(self, form: Mapping[str, Any], path: Path) -> None:
        changes = list_changes(form["identity"], self.identity)
        if changes:
            raise ChangedIdentityError(
                f"checkpoint {path} is of another run: {'; '.join(changes)}. "
                f"To go on with it, restore the old values; to start afresh, {self.remedy}"
            )

    def _paths(self) -> list[Path]:
        """Checkpoints in the order of their steps."""
        found = self.folder.glob("step-*")
        return sorted((p for p in found if p.name.removeprefix("step-").isdigit()), key=_step)

    def _remove(self, path: Path) -> None:
        """Hide a checkpoint first, so that a kill in between leaves no part of one."""
        hidden = path.with_name(f".{path.name}.removed")
        os.replace(path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, ``None`` if it is as it was written."""
    try:
        manifest = Manifest.read(path / MANIFEST)
        if manifest is None:
            return f"{MANIFEST} is missing or cannot be read"
        for name in (TENSORS, STATE):
            record = manifest.files[name]
            if not (path / name).is_file():
                return f"{name} is missing"
            size = (path / name).stat().st_size
            if size != record["bytes"]:
                return f"{name} has {size} bytes instead of {record['bytes']}"
            if file_digest(path / name) != record["sha256"]:
                return f"the SHA-256 of {name} is not the one in {MANIFEST}"
    except (KeyError, TypeError, ValueError):
        return f"{MANIFEST} cannot be read"
    except OSError as error:
        return str(error)
    return None


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, device)


def _sync(path: Path) -> None:
    """Bring a file's or a folder's content from the system's memory onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
