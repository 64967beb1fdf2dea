"""Stable Diffusion 1.x and 2.x: one text encoder, one embedding.

Their differences (CLIP or OpenCLIP text encoder, noise or velocity as the target) are differences
of configuration, which diffusers reads from the model's directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import register


@register("StableDiffusionPipeline")
class StableDiffusion(DiffusionModel):
    """Conditioning: ``embedding``, ``[N, tokens, width]``, the text encoder's last hidden state."""

    loading_options: ClassVar[dict[str, Any]] = {
        # It would replace images that the judges have to see by black ones.
        "safety_checker": None,
        "requires_safety_checker": False,
    }

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """See :meth:`DiffusionModel.encode_prompts`."""
        embeddings, _ = self.pipeline.encode_prompt(
            list(prompts), self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Conditioning({"embedding": embeddings})

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """See :meth:`DiffusionModel.predict`."""
        text = conditioning.to(self.device, self.dtype)
        return self.unet(
            noisy.to(self.device, self.dtype), timesteps.to(self.device), text["embedding"]
        ).sample
