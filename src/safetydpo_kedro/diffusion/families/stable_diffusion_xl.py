"""Stable Diffusion XL: two text encoders, a pooled embedding, and the size of the image.

Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis",
section 2.2: the denoiser is also told the size of the original image, where it was cropped, and
the size that is wanted ("time ids").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.model import DiffusionModel
from safetydpo_kedro.diffusion.registry import register
from safetydpo_kedro.diffusion.tokens import TextTower, split_embeddings


@register("StableDiffusionXLPipeline")
class StableDiffusionXL(DiffusionModel):
    """Conditioning: hidden states of both text encoders, and the second one's pooled embedding.

    ``embedding`` ``[N, tokens, width_1 + width_2]``, the last but one hidden states side by side;
    ``pooled`` ``[N, projection]``.
    """

    loading_options: ClassVar[dict[str, Any]] = {"add_watermarker": False}

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """See :meth:`DiffusionModel.encode_prompts`."""
        embeddings, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Conditioning({"embedding": embeddings, "pooled": pooled.to(self.device)})

    @property
    def text_towers(self) -> list[TextTower]:
        """See :attr:`DiffusionModel.text_towers`."""
        pipeline = self.pipeline
        return [
            TextTower(pipeline.tokenizer, pipeline.text_encoder),
            TextTower(pipeline.tokenizer_2, pipeline.text_encoder_2),
        ]

    def encode_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Conditioning:
        """See :meth:`DiffusionModel.encode_tokens`."""
        towers = self.text_towers
        outputs = []
        for tower, part in zip(towers, split_embeddings(towers, embeddings), strict=True):
            with tower.content(part):
                framed = tower.frame(ids).to(self.device)
                outputs.append(tower.encoder(framed, output_hidden_states=True))
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return Conditioning({"embedding": hidden, "pooled": outputs[-1][0]})

    def summary(self, conditioning: Conditioning, length: int) -> Tensor:
        """See :meth:`DiffusionModel.summary`."""
        return torch.cat([conditioning["embedding"][:, length + 1], conditioning["pooled"]], dim=1)

    def unconditional(self) -> Conditioning:
        """Zeros where the model was trained so, else the empty prompt."""
        empty = self.encode_prompts([""])
        if not self.pipeline.config.force_zeros_for_empty_prompt:
            return empty
        return Conditioning({name: torch.zeros_like(t) for name, t in empty.tensors.items()})

    def time_ids(self, latents: Tensor) -> Tensor:
        """Size conditioning of whole, uncropped images of the latents' own size.

        Args:
            latents: ``[N, C, h, w]``.

        Returns:
            ``[N, 6]``: original height and width, crop top and left, target height and width, in
            pixels.
        """
        size = [side * self.pipeline.vae_scale_factor for side in latents.shape[-2:]]
        ids = torch.tensor([*size, 0, 0, *size], device=self.device, dtype=self.dtype)
        return ids.expand(len(latents), -1)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """See :meth:`DiffusionModel.predict`."""
        text = conditioning.to(self.device, self.dtype)
        return self.unet(
            noisy.to(self.device, self.dtype),
            timesteps.to(self.device),
            text["embedding"],
            added_cond_kwargs={"text_embeds": text["pooled"], "time_ids": self.time_ids(noisy)},
        ).sample
