"""The key format of Kohya's scripts, which ComfyUI and the A1111 web interface read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_kohya,
    convert_unet_state_dict_to_peft,
)
from safetensors.torch import save_file
from torch import Tensor

from safetydpo_kedro.artifacts import write_atomically
from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.lora_keys import UNET_PREFIX, adapter_state_dict

KOHYA_PREFIX = "lora_unet_"
# Blocks by their names in Stability's code, which sd-scripts keeps for SDXL. Which of diffusers'
# blocks one is depends on the number of layers per block, so on the UNet.
STABILITY_BLOCKS = ("input_blocks_", "middle_block_", "output_blocks_")
CONVERSION = (
    "convert the file once: pipeline.load_lora_weights(file), and then save_lora_weights with "
    "unet_lora_layers=get_peft_model_state_dict(pipeline.unet, adapter_name='default_0') and "
    "unet_lora_adapter_metadata=pipeline.unet.peft_config['default_0'].to_dict()"
)


def save_kohya(adapter: LoraAdapter, path: Path) -> None:
    """Write ``adapter`` under Kohya's keys (``lora_unet_….lora_down.weight``), atomically.

    The conversion is diffusers' own. Each layer gets an alpha equal to its rank, because the
    scale is folded into B.
    """
    state = convert_state_dict_to_kohya(adapter_state_dict(adapter))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with write_atomically(path) as temporary:
        save_file(state, temporary)


def from_kohya(
    state: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Factors under diffusers' keys, and each layer's scale, from Kohya's keys.

    The conversion of the names is diffusers' own. ``scale = alpha / rank`` with the layer's own
    alpha; a layer without one has alpha equal to its rank, as in sd-scripts.

    Args:
        state: the tensors of the file.
        source: name of the file, for error messages.

    Returns:
        Key → factor, and layer name → scale.

    Raises:
        ValueError: the names of the layers cannot be told without the UNet, or not at all.
    """
    foreign = [key for key in state if not key.startswith(KOHYA_PREFIX)]
    if foreign:
        raise ValueError(
            f"{source}: key '{foreign[0]}' is not of Kohya's form '{KOHYA_PREFIX}…', as others in "
            f"the file are; save the LoRA in one format"
        )
    unknown = [key for key in state if key.removeprefix(KOHYA_PREFIX).startswith(STABILITY_BLOCKS)]
    if unknown:
        raise ValueError(
            f"{source}: key '{unknown[0]}' names a block as Stability's code does, and only the "
            f"UNet tells which of diffusers' blocks that is; {CONVERSION}"
        )
    try:
        converted, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(dict(state))
        factors = convert_unet_state_dict_to_peft(converted)
        scales = _scales(factors, alphas or {})
    except Exception as error:  # of whatever kind the key that it stumbles over makes it
        raise ValueError(
            f"{source}: diffusers cannot convert these Kohya keys ({error}); the file must have "
            f"a lora_down, a lora_up and at most an alpha for every layer"
        ) from error
    pairs = [key for key in state if key.endswith(".lora_down.weight")]
    if len(factors) != 2 * len(pairs):  # two of Kohya's layers came to one name
        raise ValueError(
            f"{source}: diffusers gives these {len(pairs)} layers only {len(factors) // 2} names, "
            f"so some would be lost; save the LoRA under diffusers' keys where it was made"
        )
    return factors, scales


def _scales(factors: Mapping[str, Tensor], alphas: Mapping[str, float]) -> dict[str, float]:
    """Layer name → alpha / rank, for the layers that have an alpha.

    Diffusers names the alpha of an attention's projection after the whole key of A, and those of
    other layers after the layer. Its own loader then loses alphas of the first kind where they
    differ between layers.
    """
    scales = {}
    for key, alpha in convert_unet_state_dict_to_peft(alphas).items():
        stem = key.removesuffix(".alpha").removesuffix(".lora_A.weight")
        rank = factors[f"{stem}.lora_A.weight"].shape[0]
        scales[stem.removeprefix(UNET_PREFIX)] = alpha / rank
    return scales
