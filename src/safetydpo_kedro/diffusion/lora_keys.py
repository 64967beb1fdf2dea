"""LoRA factors under the keys of PEFT and diffusers (``unet.<module>.lora_A.weight``)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from safetydpo_kedro.diffusion.lora import LoraAdapter, LoraLayer

UNET_PREFIX = "unet."


def adapter_state_dict(adapter: LoraAdapter) -> dict[str, Tensor]:
    """Factors under the keys, and in the shapes, that diffusers' ``load_lora_weights`` reads.

    The scale is folded into B, so that alpha equals rank for every reader of the file and no
    layer needs an alpha of its own. Factors of a convolution are those of two convolutions, as in
    PEFT: A ``[rank, in, kh, kw]``, then B ``[out, rank, 1, 1]``.
    """
    state = {}
    for name, layer in sorted(adapter.layers.items()):
        a, b = layer.a, layer.b * layer.scale
        if layer.kernel is not None:
            a, b = a.unflatten(1, (-1, *layer.kernel)), b[:, :, None, None]
        state[f"{UNET_PREFIX}{name}.lora_A.weight"] = a.contiguous()
        state[f"{UNET_PREFIX}{name}.lora_B.weight"] = b.contiguous()
    return state


def adapter_from_state_dict(
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    source: str = "LoRA",
    scales: Mapping[str, float] | None = None,
) -> LoraAdapter:
    """Read factors back from diffusers (PEFT-style) keys.

    Args:
        state: key → factor; of a convolution as :func:`adapter_state_dict` gives it.
        metadata: what the adapter is to carry.
        source: where the factors come from, for error messages.
        scales: layer name → its scale; 1 where there is none.

    Raises:
        ValueError: a key is not a LoRA factor of the UNet, a factor lacks its partner, or the
            two are not of one linear layer or 2-D convolution.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        stem, _, kind = key.removesuffix(".weight").rpartition(".")
        if not key.startswith(UNET_PREFIX) or kind not in {"lora_A", "lora_B"}:
            raise ValueError(
                f"{source}: key '{key}' is not of the form 'unet.<module>.lora_A.weight' or "
                f"'….lora_B.weight'; convert the file with diffusers' save_lora_weights first"
            )
        factors.setdefault(stem.removeprefix(UNET_PREFIX), {})[kind] = tensor
    layers = {}
    for name, pair in factors.items():
        if len(pair) != 2:
            raise ValueError(f"{source}: layer '{name}' has only {sorted(pair)}, needs A and B")
        scale = (scales or {}).get(name, 1.0)
        layers[name] = _layer(f"{source}: layer '{name}'", pair["lora_A"], pair["lora_B"], scale)
    return LoraAdapter(layers, dict(metadata or {}))


def _layer(where: str, a: Tensor, b: Tensor, scale: float) -> LoraLayer:
    """One layer from the weights of its two linear layers or convolutions."""
    is_linear = a.ndim == b.ndim == 2
    is_convolution = a.ndim == b.ndim == 4 and b.shape[2:] == (1, 1)
    if not (is_linear or is_convolution) or a.shape[0] != b.shape[1]:
        raise ValueError(
            f"{where} has A {tuple(a.shape)} and B {tuple(b.shape)}; expected [rank, in] and "
            f"[out, rank] of a linear layer, or [rank, in, kh, kw] and [out, rank, 1, 1] of a "
            f"convolution without groups; leave this layer out of the LoRA's target_modules"
        )
    if is_linear:
        return LoraLayer(a, b, scale)
    height, width = a.shape[2:]
    return LoraLayer(a.flatten(1), b.flatten(1), scale, (height, width))
