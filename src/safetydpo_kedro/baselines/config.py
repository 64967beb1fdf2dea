"""Typed configuration of the baselines. Importing this module loads no model library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from safetydpo_kedro.parameters import CheckpointParameters, Strict

#: The safety concept S of Safe Latent Diffusion, as its authors released it.
SLD_CONCEPT = (
    "an image showing hate, harassment, violence, suffering, humiliation, harm, suicide, sexual, "
    "nudity, bodily fluids, blood, obscene gestures, illegal activity, drug use, theft, "
    "vandalism, weapons, child abuse, brutality, cruelty",
)

#: Three configurations of Safe Latent Diffusion, for 50 steps and guidance scale 7.5:
#: ``SldConfig(concept=SLD_CONCEPT, **SLD_PRESETS["strong"])``.
SLD_PRESETS: Mapping[str, Mapping[str, float]] = {
    "medium": {
        "guidance_scale": 1000,
        "warmup_steps": 10,
        "threshold": 0.01,
        "momentum_scale": 0.3,
        "momentum_beta": 0.4,
    },
    "strong": {
        "guidance_scale": 2000,
        "warmup_steps": 7,
        "threshold": 0.025,
        "momentum_scale": 0.5,
        "momentum_beta": 0.7,
    },
    "max": {
        "guidance_scale": 5000,
        "warmup_steps": 0,
        "threshold": 1.0,
        "momentum_scale": 0.5,
        "momentum_beta": 0.7,
    },
}


class SldConfig(Strict):
    """Safe Latent Diffusion (Schramowski et al., CVPR 2023). Defaults are its "medium".

    Attributes:
        concept: the safety concept S, what images are steered away from. One text is the paper's
            way; of several the mean conditioning is taken (ours, for tokenizers that read too
            few tokens for one text that names everything).
        guidance_scale: s_S, how soon the scale μ of a latent value reaches its bound of 1; 0
            switches the safety guidance off. Paper: 1000 (medium), 2000 (strong), 5000 (max).
        warmup_steps: δ, first steps without safety guidance; they fix what the image is composed
            of, so more of them change it less. Counted in sampling steps: the paper's 10 (medium),
            7 (strong) and 0 (max) are of 50.
        threshold: λ; a latent value is steered where ε(c_p) - ε(c_S) is below it. 0 still steers
            half of them. Paper: 0.01 (medium), 0.025 (strong), 1 (max).
        momentum_scale: s_m, weight of the momentum in the guidance. Paper: 0.3, 0.5, 0.5.
        momentum_beta: β_m, share of the momentum that outlives a step. Paper: 0.4, 0.7, 0.7.
    """

    concept: tuple[str, ...] = Field(default=SLD_CONCEPT, min_length=1)
    guidance_scale: float = Field(default=1000, ge=0, allow_inf_nan=False)
    warmup_steps: int = Field(default=10, ge=0)
    threshold: float = Field(default=0.01, allow_inf_nan=False)
    momentum_scale: float = Field(default=0.3, ge=0, le=1)
    momentum_beta: float = Field(default=0.4, ge=0, lt=1)


class EsdConfig(Strict):
    """Erased Stable Diffusion, ESD-u (Gandikota et al., ICCV 2023). Defaults are the paper's.

    Attributes:
        steps: optimizer steps (Adam). Paper: 1000.
        learning_rate: α. Paper: 1e-5.
        negative_guidance: η, how far the prediction is led away from the concept. Paper: 1.
        start_guidance: guidance scale with which x_t is sampled under the concept. Paper: 3.
        sampling_steps: steps of the sampler that x_t comes from. Paper: 50.
        batch_size: rows of a step; they share their timestep, each has a concept of its own.
            Paper: 1.
        seed: of concepts, timesteps and noise.
        gradient_checkpointing: compute activations twice instead of keeping them.
        checkpoints: where training states go, and how often; no part of the result's identity.
    """

    steps: int = Field(default=1000, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    negative_guidance: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    start_guidance: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    sampling_steps: int = Field(default=50, ge=1)
    batch_size: int = Field(default=1, ge=1)
    seed: int = 0
    gradient_checkpointing: bool = False
    checkpoints: CheckpointParameters = Field(default=CheckpointParameters(), exclude=True)


class UceConfig(Strict):
    """Unified Concept Editing (Gandikota et al., WACV 2024). Defaults are its authors' code's.

    Attributes:
        erase_scale: weight of the edited texts (set E of equation 7; 1 is the paper).
        preserve_scale: weight of the preserved texts (set P; 1 is the paper).
        regularization: λ, weight of staying with the old weights in all directions; it also makes
            the system solvable. More of it edits less. In the authors' code 0.5.
        tokens: which token embeddings of a text are edited. ``last``: that of its last word, for
            texts that name a concept and nothing else. ``from_last``: that and all behind it (end
            and padding), which the denoiser reads too. ``all``: each but the first, token by
            token, for captions that differ from their anchor in some words.
    """

    erase_scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    preserve_scale: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    regularization: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    tokens: Literal["last", "from_last", "all"] = "last"
