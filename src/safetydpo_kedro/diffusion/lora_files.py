"""LoRA files: diffusers' safetensors, written and read, and what other programs write, read.

A file that holds anything else than LoRA factors of a UNet is refused: a part that is left out
in silence would give another model than the file's author saw.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from safetydpo_kedro.artifacts import write_atomically
from safetydpo_kedro.diffusion.kohya import KOHYA_PREFIX, from_kohya
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.lora_keys import (
    UNET_PREFIX,
    adapter_from_state_dict,
    adapter_state_dict,
)

OWN_METADATA_KEY = "safetydpo_kedro"
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)  # of Kohya's alphas
# Of the expressions that PEFT's patterns may be, those that match in no time: a file may bring any.
# So no group is repeated, and few characters are.
PATTERN = re.compile(r"[\w.^$\\|()\[\]-]*(?:(?<!\))\*[\w.^$\\|()\[\]-]*){0,3}")
TEXT_ENCODER_PREFIXES = ("text_encoder", "lora_te")
NO_DORA = "is of a DoRA, whose ΔW depends on the weights below it; train it again without DoRA"
NO_BIAS = "is a bias, which has no factors; train the LoRA again with lora_bias=False"
# Part of a key → what it is, and what to do.
REFUSED_KEYS = {
    "lora_magnitude_vector": NO_DORA,
    "dora_scale": NO_DORA,
    "lora_B.bias": NO_BIAS,
    "lora_up.bias": NO_BIAS,
    **{
        part: f"is of a {kind}, which is no LoRA; train a LoRA, or let the program that trained "
        f"the file convert it to one"
        for part, kind in {
            "hada_": "LoHa",
            "lokr_": "LoKr",
            "lora_mid": "LoCon with a Tucker decomposition",
            "oft_": "OFT",
            ".diff": "full fine-tuning (ΔW itself)",
        }.items()
    },
}


def save_adapter(adapter: LoraAdapter, path: Path) -> None:
    """Write ``adapter`` as diffusers LoRA safetensors, atomically.

    The metadata goes into the header as one JSON string: safetensors writes several header
    entries in no fixed order, and equal adapters must give equal bytes.
    """
    header = json.dumps(adapter.metadata, sort_keys=True)
    state = {key: value.detach().cpu() for key, value in adapter_state_dict(adapter).items()}
    with write_atomically(path) as temporary:
        save_file(state, temporary, metadata={OWN_METADATA_KEY: header})


def load_adapter(path: Path) -> LoraAdapter:
    """Read a LoRA safetensors file: ours, diffusers' (old keys too), or Kohya's for SD 1.x/2.x.

    Scales are those that PEFT applies. With diffusers' ``lora_adapter_metadata`` in the header a
    layer's scale is ``alpha / r``, with rsLoRA ``alpha / sqrt(r)`` (Kalajdzievski 2023), and
    ``alpha_pattern`` goes before ``lora_alpha``. Kohya's files hold an alpha for each layer.
    Without either the scale is 1, which is diffusers' rule.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else than LoRA factors of a UNet, or its metadata
            contradicts its factors, or a factor is not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no LoRA file at {path}: train or merge it first")
    source = str(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{source} is no safetensors file ({error}); convert it to one") from error
    if not state:
        raise ValueError(f"{source} holds no tensors: train or merge the LoRA again")
    _refuse_other_keys(state, source)
    _refuse_other_values(state, source)
    if any(key.startswith(KOHYA_PREFIX) for key in state):
        state, scales = from_kohya(state, source)
    else:
        state = convert_unet_state_dict_to_peft(state)
        scales = _peft_scales(
            state, _header_entry(header, LORA_ADAPTER_METADATA_KEY, source), source
        )
    metadata = _header_entry(header, OWN_METADATA_KEY, source)
    adapter = adapter_from_state_dict(state, metadata, source, scales)
    for name, layer in adapter.layers.items():
        largest = float(layer.a.abs().max()) * float(layer.b.abs().max()) * layer.rank
        if not largest * abs(layer.scale) < torch.finfo(torch.float32).max:
            raise ValueError(
                f"{source}: layer '{name}' has factors up to {largest:g} and scale {layer.scale}, "
                f"so that ΔW is not finite; train the LoRA again"
            )
    return adapter


def _header_entry(header: Mapping[str, str], key: str, source: str) -> dict[str, Any]:
    """One JSON object of a file's header; empty if the header has none of that name."""
    try:
        entry = json.loads(header.get(key) or "{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: header entry '{key}' is no JSON ({error})") from error
    if not isinstance(entry, dict):
        raise ValueError(
            f"{source}: header entry '{key}' must be a JSON object, got {str(entry)[:80]}"
        )
    return entry


def _refuse_other_keys(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse what is no low-rank factor, and what is not of the UNet."""
    for key in state:
        for part, reason in REFUSED_KEYS.items():
            if part in key:
                raise ValueError(f"{source}: key '{key}' {reason}")
    text = [key for key in state if key.startswith(TEXT_ENCODER_PREFIXES)]
    if text:
        raise ValueError(
            f"{source}: {len(text)} keys are of a text encoder ('{text[0]}', …, '{text[-1]}'), and "
            f"only LoRAs of the UNet merge; train the LoRA on the UNet alone"
        )


def _refuse_other_values(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are empty, not finite, or not of real numbers."""
    for key, tensor in state.items():
        allowed = (*DTYPES, *INTEGERS) if key.endswith(".alpha") else DTYPES
        if tensor.dtype not in allowed or not tensor.numel():
            raise ValueError(
                f"{source}: '{key}' is of {tensor.dtype} and shape {tuple(tensor.shape)}; factors "
                f"are of float16, bfloat16, float32 or float64, and not empty"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"{source}: '{key}' has NaN or infinite values; train the LoRA again")


def _peft_scales(
    state: Mapping[str, Tensor], metadata: Mapping[str, Any], source: str
) -> dict[str, float]:
    """Layer name → scale, from the PEFT configuration that diffusers puts into the header.

    Args:
        state: key → factor, under PEFT's keys.
        metadata: ``{"unet.r": 4, "unet.lora_alpha": 8, …}``; empty: no layer has a scale.
        source: name of the file, for error messages.
    """
    stored = {
        key.removeprefix(UNET_PREFIX): value
        for key, value in metadata.items()
        if key.startswith(UNET_PREFIX)
    }
    if not stored:
        return {}
    config = LoraConfig().to_dict() | stored
    for option, reason in (("use_dora", NO_DORA), ("lora_bias", NO_BIAS)):
        if config[option]:
            raise ValueError(f"{source}: metadata entry 'unet.{option}' {reason}")
    _check_ranks(config, source)
    scales = {}
    for key, a in state.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix(UNET_PREFIX).removesuffix(".lora_A.weight")
        rank = _by_pattern(config["rank_pattern"], name, config["r"])
        if rank != a.shape[0]:
            raise ValueError(
                f"{source}: layer '{name}' has rank {a.shape[0]}, but its metadata says {rank}; "
                f"save the file again with the metadata of this adapter"
            )
        alpha = _by_pattern(config["alpha_pattern"], name, config["lora_alpha"])
        scales[name] = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
    return scales


def _check_ranks(config: Mapping[str, Any], source: str) -> None:
    """Refuse ranks and alphas that are no numbers, and patterns that PEFT would not write."""
    patterns = {name: config[name] for name in ("rank_pattern", "alpha_pattern")}
    if not all(isinstance(pattern, dict) for pattern in patterns.values()):
        raise ValueError(f"{source}: metadata has no objects 'rank_pattern' and 'alpha_pattern'")
    keys = [key for pattern in patterns.values() for key in pattern]
    odd = [key for key in keys if not _is_pattern(key)]
    numbers = [
        config["r"],
        config["lora_alpha"],
        *(v for p in patterns.values() for v in p.values()),
    ]
    odd += [str(n) for n in numbers if type(n) not in (int, float) or not 0 < n < math.inf]
    if odd:
        raise ValueError(
            f"{source}: metadata has the rank, alpha or pattern {odd[0][:80]!r}; these are numbers "
            f"above 0, and names of layers; save the file again with the metadata of this adapter"
        )


def _is_pattern(key: str) -> bool:
    try:
        return len(key) <= 300 and bool(PATTERN.fullmatch(key) and re.compile(key))
    except re.error:
        return False


def _by_pattern(patterns: Mapping[str, float], name: str, default: float) -> float:
    """The value of the first pattern that matches a layer's name, by PEFT's own rule."""
    return patterns.get(get_pattern_key(patterns.keys(), name), default)
