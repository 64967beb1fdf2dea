"""The key format of Kohya's scripts, which ComfyUI and the A1111 web interface read."""

from __future__ import annotations

from pathlib import Path

from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from safetensors.torch import save_file

from safetydpo_kedro.artifacts import write_atomically
from safetydpo_kedro.diffusion.lora import LoraAdapter, adapter_state_dict


def save_kohya(adapter: LoraAdapter, path: Path) -> None:
    """Write ``adapter`` under Kohya's keys (``lora_unet_….lora_down.weight``), atomically.

    The conversion is diffusers' own. Each layer gets an alpha equal to its rank, because the
    scale is folded into B.
    """
    state = convert_state_dict_to_kohya(adapter_state_dict(adapter))
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with write_atomically(path) as temporary:
        save_file(state, temporary)
