"""Files that are no LoRA of a UNet are refused by their key, with what to do."""

from __future__ import annotations

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from safetydpo_kedro.diffusion.lora_files import load_adapter

from ..worlds import tiny_pipeline

UNET_KEY = "lora_unet_mid_block_attentions_0_proj_in"
PEFT_KEY = "unet.mid_block.attentions.0.proj_in"
KOHYA_PAIR = [f"{UNET_KEY}.lora_down.weight", f"{UNET_KEY}.lora_up.weight"]
PEFT_PAIR = [f"{PEFT_KEY}.lora_A.weight", f"{PEFT_KEY}.lora_B.weight"]


@pytest.mark.parametrize(("kind", "config"), [("LoHa", LoHaConfig), ("LoKr", LoKrConfig)])
def test_other_factorisations_are_refused(tmp_path, kind, config):
    unet = tiny_pipeline().unet
    adapted = get_peft_model(unet, config(r=2, target_modules=["to_q"]))
    state = {
        key.replace("base_model.model.", "unet."): value.contiguous()
        for key, value in get_peft_model_state_dict(adapted).items()
    }
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(
        ValueError, match=rf"x\.safetensors: key 'unet\..*' is of a {kind}.*convert"
    ):
        load_adapter(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([*KOHYA_PAIR, f"{UNET_KEY}.dora_scale"], "is of a DoRA"),
        ([*KOHYA_PAIR, f"{UNET_KEY}.lora_mid.weight"], "Tucker"),
        ([f"{UNET_KEY}.hada_w1_a"], "LoHa"),
        ([f"{UNET_KEY}.lokr_w1"], "LoKr"),
        ([f"{UNET_KEY}.oft_blocks"], "OFT"),
        ([f"{UNET_KEY}.diff"], "full fine-tuning"),
        ([*KOHYA_PAIR, "lora_te_text_model_x.lora_up.weight"], r"1 keys.*'lora_te_text_model_x"),
        ([*PEFT_PAIR, "text_encoder_2.x.lora_A.weight"], "1 keys.*'text_encoder_2.x.*UNet alone"),
        (KOHYA_PAIR[:1], "lora_down, a lora_up"),
        (KOHYA_PAIR[1:], "diffusers cannot convert"),
        ([*KOHYA_PAIR, *PEFT_PAIR], "not of Kohya's form"),
        (PEFT_PAIR[:1], r"has only \['lora_A'\]"),
        ([key.removeprefix("unet.") for key in PEFT_PAIR], "save_lora_weights"),
    ],
)
def test_what_is_no_lora_of_a_unet_is_refused_with_its_key(tmp_path, keys, message):
    save_file({key: torch.ones(2, 2) for key in keys}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=rf"x\.safetensors.*{message}"):
        load_adapter(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"lora_adapter_metadata": '{"unet.r": 4, "unet.lora_alpha": 4}'}, "rank 2.*says 4"),
        ({"lora_adapter_metadata": "{"}, "'lora_adapter_metadata' is no JSON"),
        ({"safetydpo_kedro": "[1]"}, r"'safetydpo_kedro' must be a JSON object, got \[1\]"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path, header, message):
    save_file({key: torch.ones(2, 2) for key in PEFT_PAIR}, tmp_path / "x.safetensors", header)
    with pytest.raises(ValueError, match=rf"x\.safetensors.*{message}"):
        load_adapter(tmp_path / "x.safetensors")


def test_a_file_of_another_format_is_refused(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "x.bin")
    with pytest.raises(ValueError, match=r"x\.bin is no safetensors file"):
        load_adapter(tmp_path / "x.bin")
