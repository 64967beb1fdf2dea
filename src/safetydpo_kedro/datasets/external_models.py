"""Somebody else's aligned models as a catalog entry: LoRA files and whole pipelines."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.artifacts import content_digest, fingerprint
from safetydpo_kedro.datasets.diffusion_pipeline import DiffusionPipelineDataset
from safetydpo_kedro.storage import local_copy, location

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.parameters import SamplingParameters

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")


@dataclass(frozen=True)
class ExternalModel:
    """A model to judge beside the project's own; nothing is loaded before it draws.

    Attributes:
        name: of the variant.
        lora: LoRA file for the base model; None: a whole pipeline.
        strength: multiplier of the LoRA.
        pipeline: catalog entry of the pipeline; None: a LoRA.
        sha256: digest of files and settings.
    """

    name: str
    sha256: str
    lora: Path | None = None
    strength: float = 1.0
    pipeline: DiffusionPipelineDataset | None = None
    _loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def sampler(self, base_model: DiffusionModel) -> Callable[..., NDArray[np.uint8]]:
        """A function ``(prompts, seeds, sampling)`` → uint8 images ``[N, H, W, 3]``.

        It raises a ``ValueError`` with the name of the model, for instance for a LoRA that does
        not belong to the base model.
        """

        def sample(
            prompts: Sequence[str], seeds: Sequence[int], sampling: SamplingParameters
        ) -> NDArray[np.uint8]:
            try:
                return self._sample(base_model, prompts, seeds, sampling)
            except ValueError as error:
                raise ValueError(f"external model '{self.name}': {error}") from error

        return sample

    def _sample(
        self,
        base_model: DiffusionModel,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SamplingParameters,
    ) -> NDArray[np.uint8]:
        model, patch = self.denoiser(base_model)
        with patch():
            return model.sample(prompts, seeds, sampling)

    def denoiser(
        self, base_model: DiffusionModel
    ) -> tuple[DiffusionModel, Callable[[], AbstractContextManager[Any]]]:
        """The model that predicts as this one does within the block of the second value.

        A LoRA's is the base model, and the block fuses the LoRA into it; a pipeline's is its own.
        """
        from safetydpo_kedro.diffusion.adapters import fused
        from safetydpo_kedro.diffusion.lora_files import load_adapter

        if self.pipeline is not None:
            return self._once(self.pipeline.load), nullcontext
        adapter = self._once(lambda: load_adapter(self.lora))
        return base_model, partial(fused, base_model.unet, adapter, self.strength)

    def _once(self, load: Callable[[], Any]) -> Any:
        if "it" not in self._loaded:
            self._loaded["it"] = load()
        return self._loaded["it"]


class ExternalModelsDataset(AbstractDataset[None, "list[ExternalModel]"]):
    """Names models of others that the evaluation should judge; read-only.

    Example:
        .. code-block:: yaml

            external_models:
              type: safetydpo_kedro.datasets.ExternalModelsDataset
              models:
                their_lora: {lora: data/01_raw/external/theirs.safetensors, strength: 1.0}
                their_model: {pipeline: {filepath: data/01_raw/external/theirs}}

    Args:
        models: name → ``lora`` (a file in the form of diffusers or Kohya) with ``strength``, or
            ``pipeline`` (arguments of ``DiffusionPipelineDataset``). The name becomes that of the
            variant.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.

    Raises:
        ValueError: a name that cannot be a variant's, or neither or both of ``lora`` and
            ``pipeline``, or an unknown key.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, Mapping[str, Any]] | None = None,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._storage = {"credentials": credentials, "fs_args": fs_args}
        self._models = {name: dict(entry) for name, entry in (models or {}).items()}
        self._pipelines: dict[str, DiffusionPipelineDataset] = {}
        for name, entry in self._models.items():
            _check_entry(name, entry)
            if "pipeline" in entry:
                self._pipelines[name] = DiffusionPipelineDataset(
                    **{**self._storage, **entry["pipeline"]}
                )
        self.metadata = metadata

    @property
    def fingerprint_options(self) -> dict[str, Any]:
        """What the models are: their content where it is local, wherever it lies.

        Known before a run draws anything, which is when a missing file should be noticed.

        Raises:
            DatasetError: a file or directory is not there.
        """
        return {name: self._identity(name) for name in self._models}

    def load(self) -> list[ExternalModel]:
        """List the models; each is loaded when it draws.

        Raises:
            DatasetError: a file or directory is not there.
        """
        return [self._model(name, entry) for name, entry in self._models.items()]

    def save(self, data: None) -> None:
        """Refuse: these are other people's models."""
        raise DatasetError("external models are only read")

    def _model(self, name: str, entry: Mapping[str, Any]) -> ExternalModel:
        sha256 = fingerprint(self._identity(name))
        if "pipeline" in entry:
            return ExternalModel(name, sha256, pipeline=self._pipelines[name])
        strength = float(entry.get("strength", 1.0))
        lora = local_copy(location(entry["lora"], **self._storage))
        return ExternalModel(name, sha256, lora=lora, strength=strength)

    def _identity(self, name: str) -> dict[str, Any]:
        entry = self._models[name]
        self._check_files(name, entry)
        if "pipeline" in entry:
            folder = self._pipelines[name]._filepath
            content = content_digest(folder) if folder else None
            return {"content": content, "options": self._pipelines[name].fingerprint_options}
        lora = location(entry["lora"], **self._storage)
        return {"content": content_digest(lora), "strength": entry.get("strength")}

    def _check_files(self, name: str, entry: Mapping[str, Any]) -> None:
        if "pipeline" in entry:
            there = self._pipelines[name].exists() or entry["pipeline"].get("hub_id")
            missing = None if there else f"diffusers pipeline at {entry['pipeline']['filepath']}"
        else:
            there = location(entry["lora"], **self._storage).is_file()
            missing = None if there else f"LoRA file at {entry['lora']}"
        if missing:
            raise DatasetError(
                f"external model '{name}': no {missing}; put it there, or correct "
                f"external_models in the catalog"
            )

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"models": self._models}


def _check_entry(name: str, entry: Mapping[str, Any]) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"external model {name!r}: a name consists of letters, digits, '_' and '.', and "
            f"starts with a letter or digit"
        )
    unknown = sorted(set(entry) - {"lora", "strength", "pipeline"})
    if unknown or ("lora" in entry) == ("pipeline" in entry):
        raise ValueError(
            f"external model '{name}': give `lora` (a file) and perhaps `strength`, or `pipeline` "
            f"(filepath or hub_id of a diffusers pipeline), got {dict(entry)}"
        )
    if "strength" in entry and "pipeline" in entry:
        raise ValueError(f"external model '{name}': a pipeline has no `strength`")
