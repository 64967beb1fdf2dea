"""Which models the baselines work on."""

from __future__ import annotations

from safetydpo_kedro.diffusion.families.stable_diffusion import StableDiffusion
from safetydpo_kedro.diffusion.model import DiffusionModel


def require_stable_diffusion(model: DiffusionModel, baseline: str) -> None:
    """Refuse a model that a baseline was not made for.

    The papers define SLD, ESD and UCE on Stable Diffusion 1.x and 2.x, with one text encoder and
    one embedding.

    Raises:
        ValueError: the model is of another family.
    """
    if not isinstance(model, StableDiffusion):
        raise ValueError(
            f"baseline '{baseline}' works on Stable Diffusion 1.x and 2.x only, and the model is "
            f"a {type(model).__name__}; set evaluation.skip of its variants to true"
        )
