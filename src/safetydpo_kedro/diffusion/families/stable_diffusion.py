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
from safetydpo_kedro.diffusion.tokens import TextTower


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

    @property
    def text_towers(self) -> list[TextTower]:
        """See :attr:`DiffusionModel.text_towers`."""
        return [TextTower(self.pipeline.tokenizer, self.pipeline.text_encoder)]

    def encode_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Conditioning:
        """See :meth:`DiffusionModel.encode_tokens`."""
        (tower,) = self.text_towers
        with tower.content(embeddings):
            hidden = tower.encoder(tower.frame(ids).to(self.device))[0]
        return Conditioning({"embedding": hidden})

    def summary(self, conditioning: Conditioning, length: int) -> Tensor:
        """See :meth:`DiffusionModel.summary`."""
        return conditioning["embedding"][:, length + 1]

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """See :meth:`DiffusionModel.predict`."""
        text = conditioning.to(self.device, self.dtype)
        return self.unet(
            noisy.to(self.device, self.dtype), timesteps.to(self.device), text["embedding"]
        ).sample
