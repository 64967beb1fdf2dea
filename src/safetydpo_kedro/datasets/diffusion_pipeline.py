"""A diffusers pipeline directory, or a hub id, as a catalog entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.artifacts import content_digest
from safetydpo_kedro.datasets.devices import device_named
from safetydpo_kedro.storage import local_copy, location, replace_folder, staging_folder
from safetydpo_kedro.threads import builds_models
from safetydpo_kedro.trust import check_revision

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from safetydpo_kedro.diffusion.loading import ModelSource
    from safetydpo_kedro.diffusion.model import DiffusionModel

DTYPES = ("float32", "bfloat16", "float16")
HUB_KEYS = ("hub_id", "revision", "variant")
INDEX = "model_index.json"


class DiffusionPipelineDataset(AbstractDataset["DiffusionPipeline", "DiffusionModel"]):
    """Loads a text-to-image model as a ``DiffusionModel``; saves a diffusers pipeline.

    Only safetensors weights are read and written.

    Example:
        .. code-block:: yaml

            base_model:
              type: safetydpo_kedro.datasets.DiffusionPipelineDataset
              filepath: data/sdxl/01_raw/base_model
              hub_id: stabilityai/stable-diffusion-xl-base-1.0
              revision: 462165984030d82259a11f4367a4eed129e94a7b
              variant: fp16
              dtype: float16
              vae:
                hub_id: madebyollin/sdxl-vae-fp16-fix
                revision: 207b116dae70ace3637169f1ddd2434b91b3a8cd

    Args:
        filepath: local diffusers directory (the one with ``model_index.json``).
        hub_id: name of a model on the hub; used if there is no ``filepath``, or nothing at it.
        revision: commit of the hub id, 40 hex digits; whoever names a hub id has to name it.
        variant: file name variant of the weights, such as ``fp16``.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of all weights.
        device: ``auto`` (CUDA if there is one, else CPU) or any torch device name.
        vae: another autoencoder: ``filepath`` or ``hub_id``, with ``revision`` and ``variant``.
        vae_slicing: encode and decode images one by one, which needs less memory.
        vae_tiling: encode and decode an image in tiles, which needs less still; large images
            differ a little.
        offload: keep each part in main memory until it has to work.
        hint: what to do when the directory is missing; ends the error message.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.

    Raises:
        ValueError: neither ``filepath`` nor ``hub_id``, a ``hub_id`` without a commit, or an
            unknown ``dtype``.
    """

    def __init__(
        self,
        *,
        filepath: str | None = None,
        hub_id: str | None = None,
        revision: str | None = None,
        variant: str | None = None,
        dtype: str = "float32",
        device: str = "auto",
        vae: dict[str, str] | None = None,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        offload: bool = False,
        hint: str = "Put a diffusers pipeline there, or name another one in the catalog.",
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._source = {
            "filepath": filepath,
            "hub_id": hub_id,
            "revision": revision,
            "variant": variant,
        }
        _check_source("", self._source)
        _check_source("vae: ", vae)
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self._storage = (credentials, fs_args)
        self._filepath = None if filepath is None else location(filepath, *self._storage)
        self._dtype = dtype
        self._device = device
        self._vae = vae
        self._memory = {
            "vae_slicing": vae_slicing,
            "vae_tiling": vae_tiling,
            "offload": offload,
        }
        self._hint = hint
        self.metadata = metadata

    @property
    def fingerprint_options(self) -> dict[str, Any]:
        """What else, beside the content, changes the results of a node that loads this entry."""
        return {
            "dtype": self._dtype,
            "vae_tiling": self._memory["vae_tiling"],
            **{name: self._source[name] for name in HUB_KEYS},
            "vae": self._vae and self._vae_identity(self._vae),
        }

    @builds_models
    def load(self) -> DiffusionModel:
        """Load the model onto its device.

        Raises:
            DatasetError: there is no diffusers pipeline, or it cannot be loaded.
        """
        import torch

        from safetydpo_kedro.diffusion.loading import ModelUnavailableError, load_model

        try:
            return load_model(
                self._model_source(self._source),
                dtype=getattr(torch, self._dtype),
                device=device_named(self._device),
                vae=self._model_source(self._vae) if self._vae else None,
                **self._memory,
            )
        except ModelUnavailableError as error:
            place = f" Its place is {self._filepath}." if self._filepath else ""
            raise DatasetError(f"{error}.{place} {self._hint}") from error

    def save(self, data: DiffusionPipeline) -> None:
        """Write the pipeline into a staged directory, then move it into place."""
        if self._filepath is None:
            raise DatasetError(
                f"cannot save to the hub ({self._source['hub_id']}); give a filepath instead"
            )
        with staging_folder(self._filepath) as staging:
            staged = Path(staging) / self._filepath.name
            data.save_pretrained(staged, safe_serialization=True)
            _forget_origin(staged)
            replace_folder(staged, self._filepath, last=INDEX)

    def _vae_identity(self, source: dict[str, Any]) -> dict[str, Any]:
        """What the autoencoder is: its content where it is in a folder, wherever it lies."""
        filepath = source.get("filepath")
        content = content_digest(location(filepath, *self._storage)) if filepath else None
        return {name: source.get(name) for name in HUB_KEYS} | {"content": content}

    def _model_source(self, source: dict[str, Any]) -> ModelSource:
        """Where to load from: the folder if it is there or nothing else is named."""
        from safetydpo_kedro.diffusion.loading import ModelSource

        hub_id, filepath = source.get("hub_id"), source.get("filepath")
        folder = None if filepath is None else location(filepath, *self._storage)
        there = folder is not None and folder.exists()
        is_local = there or hub_id is None
        return ModelSource(
            location=str((local_copy(folder) if there else folder) if is_local else hub_id),
            is_local=is_local,
            revision=source.get("revision"),
            variant=source.get("variant"),
        )

    def _exists(self) -> bool:
        return self._filepath is None or (self._filepath / INDEX).is_file()

    def _describe(self) -> dict[str, Any]:
        given = {name: value for name, value in self._source.items() if value is not None}
        return {**given, "dtype": self._dtype, "device": self._device, "vae": self._vae}


def _check_source(name: str, source: dict[str, Any] | None) -> None:
    if source is None:
        return
    known = ("filepath", *HUB_KEYS)
    unknown = sorted(set(source) - set(known))
    if unknown:
        raise ValueError(f"{name}unknown keys {unknown}; known are {', '.join(known)}")
    if source.get("filepath") is None and source.get("hub_id") is None:
        raise ValueError(f"{name}give filepath (a local directory), or hub_id, or both")
    check_revision(source.get("hub_id"), source.get("revision"))


def _forget_origin(folder: Path) -> None:
    """Leave out where a model was loaded from: it tells about the machine, not about the model."""
    for path in (folder / INDEX, *folder.rglob("*config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
