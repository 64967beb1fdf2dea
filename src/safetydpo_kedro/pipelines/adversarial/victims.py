"""The variants under attack: what is patched, what draws, and how they are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.baselines.config import SldConfig

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.attacks.scene import Victim
    from safetydpo_kedro.datasets.external_models import ExternalModel
    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel


def make_victims(
    base_model: DiffusionModel,
    variant: str,
    adapter: LoraAdapter | None = None,
    weights: Mapping[str, Tensor] | None = None,
    guidance: SldConfig | None = None,
    external_models: list[ExternalModel] | None = None,
) -> dict[str, tuple[Victim, str]]:
    """The victim of a variant, or those of all models of others.

    Args:
        base_model: the unprotected model.
        variant: its name; of no account for models of others.
        adapter: fused into the model.
        weights: put in place of the model's.
        guidance: of Safe Latent Diffusion. It acts while images are drawn; gradients see the
            denoiser that it guides, which is the base model's.
        external_models: models of others.

    Returns:
        Variant → victim, and a fingerprint of what it is.
    """
    from safetydpo_kedro.attacks.scene import Victim
    from safetydpo_kedro.baselines.sld import sample_safely
    from safetydpo_kedro.diffusion.adapters import fused
    from safetydpo_kedro.diffusion.weights import replaced
    from safetydpo_kedro.digests import tensors_digest
    from safetydpo_kedro.merging.profile import expert_digest

    if external_models is not None:
        return {
            model.name: (Victim(*model.denoiser(base_model)), model.sha256)
            for model in external_models
        }
    unet = base_model.unet
    if adapter is not None:
        victim = Victim(base_model, partial(fused, unet, adapter))
        return {variant: (victim, expert_digest(adapter))}
    if weights is not None:
        return {
            variant: (Victim(base_model, partial(replaced, unet, weights)), tensors_digest(weights))
        }
    if guidance is not None:
        sampler = partial(sample_safely, base_model, config=guidance)
        return {variant: (Victim(base_model, sampler=sampler), fingerprint(guidance))}
    return {variant: (Victim(base_model), tensors_digest(unet.state_dict()))}
