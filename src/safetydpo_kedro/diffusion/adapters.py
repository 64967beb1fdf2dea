"""Putting a LoRA adapter on a UNet: to train it (through PEFT), to switch it off, to fuse it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from safetydpo_kedro.diffusion.lora import LoraAdapter
from safetydpo_kedro.diffusion.lora_keys import adapter_from_state_dict
from safetydpo_kedro.parameters import LoraParameters

ADAPTER = "safety"
COMPILED_SHAPES = 64


@contextmanager
def trainable_adapter(
    unet: nn.Module, parameters: LoraParameters, seed: int
) -> Iterator[list[nn.Parameter]]:
    """Add a fresh LoRA to ``unet`` for the length of the block; yield its parameters.

    A is Gaussian and B is zero, so the policy starts as the reference. Only the adapter requires
    gradients, and it is float32 whatever the precision of the base weights. With
    ``frozen_a_seed`` A comes from that seed and only B requires gradients and is yielded.

    Raises:
        ValueError: no module of the UNet matches ``target_modules``, or one that does is neither
            linear nor a plain 2-D convolution.
    """
    alpha = parameters.rank if parameters.alpha is None else parameters.alpha
    config = LoraConfig(
        r=parameters.rank,
        lora_alpha=alpha,
        init_lora_weights="gaussian",
        target_modules=list(parameters.target_modules),
    )
    _refuse_other_layers(unet, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed if parameters.frozen_a_seed is None else parameters.frozen_a_seed)
        unet.add_adapter(config, adapter_name=ADAPTER)
    try:
        weights = {name: p for name, p in unet.named_parameters() if p.requires_grad}
        for name, weight in weights.items():
            weight.data = weight.data.float()
            if parameters.frozen_a_seed is not None and ".lora_A." in name:
                weight.requires_grad_(False)
        yield [weight for weight in weights.values() if weight.requires_grad]
    finally:
        unet.unload_lora()  # deleting the adapter would leave its wrappers in the model


@contextmanager
def reference(unet: nn.Module) -> Iterator[None]:
    """The UNet without its adapter, and without gradients: the DPO reference."""
    unet.disable_adapters()
    try:
        with torch.no_grad():
            yield
    finally:
        unet.enable_adapters()


@contextmanager
def checkpointed_activations(unet: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Within the block keep few activations for the backward pass, and compute the rest again."""
    if not enabled:
        yield
        return
    unet.enable_gradient_checkpointing()
    try:
        yield
    finally:
        unet.disable_gradient_checkpointing()


@contextmanager
def compiled_blocks(unet: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Within the block the UNet's repeated blocks run compiled (regional ``torch.compile``).

    Blocks of one kind share their compiled code, so the wait for the first step is short. They are
    compiled once for each of their shapes, which are more than torch would allow by default.
    """
    if not enabled:
        yield
        return
    unet.compile_repeated_blocks()
    try:
        with torch._dynamo.config.patch(recompile_limit=COMPILED_SHAPES):
            yield
    finally:
        for module in unet.modules():
            module._compiled_call_impl = None


def extract_adapter(unet: nn.Module, metadata: dict[str, str]) -> LoraAdapter:
    """Copy the adapter that is being trained out of the UNet, its scale folded into B."""
    scale = next(m.scaling[ADAPTER] for m in unet.modules() if ADAPTER in getattr(m, "scaling", {}))
    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    factors = {
        f"unet.{key}": (value * scale if "lora_B" in key else value).detach().cpu().clone()
        for key, value in state.items()
    }
    return adapter_from_state_dict(factors, metadata)


@contextmanager
def fused(unet: nn.Module, adapter: LoraAdapter | None, strength: float = 1.0) -> Iterator[None]:
    """Add ``strength · ΔW`` to the weights for the length of the block: no cost per step.

    Afterwards the weights are what they were, bit for bit. ``None`` is the base model.

    Raises:
        ValueError: the adapter names a module that the UNet lacks, or of another shape.
    """
    originals: dict[str, Tensor] = {}
    try:
        if adapter is not None:
            _add(unet, adapter, strength, originals)
        yield
    finally:
        for name, original in originals.items():
            _weight(unet, name).data = original


def fuse(unet: nn.Module, adapter: LoraAdapter, strength: float = 1.0) -> None:
    """Add ``strength · ΔW`` to the weights for good.

    Raises:
        ValueError: the adapter names a module that the UNet lacks, or of another shape.
    """
    _add(unet, adapter, strength, {})


def _add(
    unet: nn.Module, adapter: LoraAdapter, strength: float, originals: dict[str, Tensor]
) -> None:
    """Change the weights, and note in ``originals`` what each was before."""
    for name, layer in adapter.layers.items():
        weight = _weight(unet, name)
        if layer.weight_shape != weight.shape:
            raise ValueError(
                f"adapter layer '{name}' is {layer.weight_shape}, the model's weight is "
                f"{tuple(weight.shape)}: the adapter belongs to another model"
            )
        originals[name] = weight.data
        # A product of half-precision factors would lose digits that the sum still has.
        wide = {
            "device": weight.device,
            "dtype": torch.promote_types(weight.dtype, torch.float32),
        }
        delta = replace(layer, a=layer.a.to(**wide), b=layer.b.to(**wide)).weight_delta()
        weight.data = (weight.data.to(**wide) + strength * delta).to(weight.dtype)


def _weight(unet: nn.Module, name: str) -> nn.Parameter:
    try:
        return unet.get_submodule(name).weight
    except AttributeError as error:
        raise ValueError(
            f"adapter layer '{name}' is not in the model: the adapter belongs to another model"
        ) from error


def _refuse_other_layers(unet: nn.Module, config: LoraConfig) -> None:
    """Refuse targets whose trained LoRA is no low-rank update of the layer's weight.

    PEFT trains a LoRA on any convolution, but gives it neither the dilation nor the padding mode
    of the layer, and with groups ``B A`` is not the weight's update.
    """
    for name, module in unet.named_modules():
        if not check_target_module_exists(config, name) or isinstance(module, nn.Linear):
            continue
        if not isinstance(module, nn.Conv2d):
            raise ValueError(
                f"target_modules matches '{name}', a {type(module).__name__}; only linear layers "
                f"and 2-D convolutions can be adapted"
            )
        if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
            raise ValueError(
                f"target_modules matches '{name}', a convolution with groups {module.groups}, "
                f"dilation {module.dilation} and padding mode '{module.padding_mode}'; only those "
                f"with groups 1, dilation (1, 1) and padding mode 'zeros' can be adapted"
            )
