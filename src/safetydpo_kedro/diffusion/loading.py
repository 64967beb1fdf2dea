"""Loading a text-to-image pipeline from a directory or the hub, or saying clearly why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from huggingface_hub import get_token

from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import family_of
from safetydpo_kedro.trust import without_secrets

INDEX = "model_index.json"
MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")


class ModelUnavailableError(ValueError):
    """A model cannot be loaded; the message says which and what to do."""


@dataclass(frozen=True)
class ModelSource:
    """Where the weights of a pipeline, or of one of its parts, come from.

    Attributes:
        location: local directory or hub id.
        is_local: which of the two it is.
        revision: commit of a hub id.
        variant: file name variant such as ``fp16``.
    """

    location: str
    is_local: bool
    revision: str | None = None
    variant: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of every ``from_pretrained``."""
        options = {"variant": self.variant, "use_safetensors": True}
        return options | ({} if self.is_local else {"revision": self.revision})

    def __str__(self) -> str:
        details = [f"{name} {getattr(self, name)}" for name in ("revision", "variant")]
        details = [text for text in details if not text.endswith("None")]
        kind = "directory" if self.is_local else "hub id"
        return f"{kind} '{self.location}'" + (f" ({', '.join(details)})" if details else "")


def load_model(
    source: ModelSource,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    vae: ModelSource | None = None,
    vae_slicing: bool = False,
    vae_tiling: bool = False,
    offload: bool = False,
) -> DiffusionModel:
    """Load a pipeline of a known family; safetensors weights only.

    Args:
        source: of the pipeline.
        dtype: of all weights.
        device: torch device on which the model computes.
        vae: another autoencoder than the pipeline's own.
        vae_slicing: encode and decode images one by one.
        vae_tiling: encode and decode an image in overlapping tiles; large images differ a little.
        offload: keep each part in main memory until it has to work.

    Raises:
        ModelUnavailableError: weights or parts are missing, are pickles, or cannot be fetched.
        ValueError: no family knows the pipeline, or there is nothing to offload from.
    """
    if offload and torch.device(device).type == "cpu":
        raise ValueError(
            "offload: true needs an accelerator to offload from, but the device is 'cpu'; "
            "set offload: false or another device in the catalog"
        )
    folder = _folder(source)
    if source.is_local and not any(folder.rglob(f"*.{source.variant}.*")):
        source = replace(source, variant=None)  # a local copy may hold the plain files alone
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    family = family_of(_class_name(index, source))
    parts = dict(family.loading_options)
    if vae is not None:
        parts["vae"] = _from_pretrained(AutoencoderKL, vae.location, vae, dtype)
    _check_parts(folder, [name for name in MODELS if name in index and name not in parts], source)
    pipeline = _from_pretrained(
        DiffusionPipeline, folder, source, dtype, trust_remote_code=False, **parts
    )
    if vae_slicing:
        pipeline.vae.enable_slicing()
    if vae_tiling:
        pipeline.vae.enable_tiling()
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return family(pipeline)


def _folder(source: ModelSource) -> Path:
    """Local folder of a pipeline, fetched from the hub if it is there."""
    if not source.is_local:
        with _explained(source):
            return Path(
                DiffusionPipeline.download(
                    source.location, trust_remote_code=False, **source.options
                )
            )
    folder = Path(source.location)
    if not folder.is_dir():
        raise ModelUnavailableError(f"no diffusers pipeline in {source}: there is no such folder")
    if not (folder / INDEX).is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise ModelUnavailableError(
            f"no diffusers pipeline in {source}: it lacks {INDEX} and holds {found}. A single-file "
            f"checkpoint becomes a pipeline by diffusers' from_single_file and save_pretrained"
        )
    return folder


def _class_name(index: dict[str, Any], source: ModelSource) -> str:
    """Name of the pipeline's class; a class that comes with the weights is code, and not run."""
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise ModelUnavailableError(
            f"{source}: {INDEX} has _class_name = {name!r}, and no code that comes with weights is "
            f"run; bring a pipeline of a class of diffusers"
        )
    return name


def _check_parts(folder: Path, parts: list[str], source: ModelSource) -> None:
    """Refuse a pipeline whose models lack weights, or have them as pickles only."""
    for part in parts:
        if any((folder / part).glob("*.safetensors")):
            continue
        pickles = [p.name for p in (folder / part).glob("*.bin")]
        state = f"only the pickle {pickles[0]}" if pickles else "no weights"
        advice = (
            "load it where you trust it and write it again by save_pretrained"
            if pickles
            else "copy or download the pipeline again"
        )
        raise ModelUnavailableError(
            f"{source}: '{part}' has {state}, and only safetensors are loaded; {advice}"
        )


def _from_pretrained(
    kind: type, location: str | Path, source: ModelSource, dtype: torch.dtype, **parts: Any
) -> Any:
    with _explained(source):
        return kind.from_pretrained(str(location), dtype=dtype, **source.options, **parts)


@contextmanager
def _explained(source: ModelSource) -> Iterator[None]:
    """Turn what diffusers and the hub raise into one error that says what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        advice = (
            "check the folder"
            if source.is_local
            else f"without a network, download it elsewhere (`hf download {source.location} "
            f"--revision {source.revision}`) "
            f"and give the folder as filepath in the catalog"
        )
        text = f"cannot load {source}: {reason}. What to do: {advice}"
        if source.is_local:
            raise ModelUnavailableError(text) from error
        # A server may quote the token that it refuses, and errors of the hub quote the server.
        raise ModelUnavailableError(without_secrets(text, get_token())) from None
