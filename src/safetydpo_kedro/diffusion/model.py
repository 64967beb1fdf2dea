"""A latent diffusion pipeline, seen through the operations that alignment needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor, nn

from safetydpo_kedro.diffusion.conditioning import Conditioning
from safetydpo_kedro.diffusion.tokens import TextTower
from safetydpo_kedro.parameters import SamplingParameters
from safetydpo_kedro.progress import progress_bar


class DiffusionModel(ABC):
    """One interface over all families of latent diffusion models.

    A family (a file of :mod:`safetydpo_kedro.diffusion.families`) says how its prompts are encoded
    and how its denoiser is called; all else is common. Nothing here trains: all weights are frozen,
    and only an adapter added to :attr:`unet` (see :mod:`safetydpo_kedro.diffusion.adapters`) can
    change what the model draws.

    Args:
        pipeline: a diffusers pipeline of the family. It may have been offloaded; then each part
            is on the accelerator only while it works.

    Attributes:
        device: where the model computes; fixed when the pipeline is handed over.
        dtype: precision of the denoiser's weights, likewise.
        loading_options: what ``from_pretrained`` of the family's pipeline is told in addition.
    """

    loading_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        pipeline.set_progress_bar_config(disable=True)
        pipeline.unet.to(memory_format=torch.channels_last)  # convolutions run faster
        self.pipeline = pipeline
        # Asked for in every step, and diffusers walks over all modules to find them.
        self.device: torch.device = pipeline._execution_device
        self.dtype: torch.dtype = pipeline.unet.dtype
        self.noise_schedule = DDPMScheduler.from_config(pipeline.scheduler.config)

    @property
    def unet(self) -> nn.Module:
        """The denoiser."""
        return self.pipeline.unet

    @property
    def train_timesteps(self) -> int:
        """Number of diffusion timesteps, T."""
        return self.noise_schedule.config.num_train_timesteps

    def place_unet(self) -> None:
        """Bring an offloaded denoiser to the device, for code that works on its weights there."""
        self.unet.to(self.device)

    def on(self, device: torch.device | str) -> DiffusionModel:
        """This model on another device, where all its parts stay: offloading ends."""
        self.pipeline.remove_all_hooks()
        return type(self)(self.pipeline.to(device))

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Text conditioning of N prompts, without gradient, on the model's device."""

    @property
    @abstractmethod
    def text_towers(self) -> list[TextTower]:
        """Text encoders with their tokenizers, in the order in which the denoiser reads them."""

    @abstractmethod
    def encode_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Conditioning:
        """Text conditioning of N prompts given as tokens, with gradient for their embeddings.

        Args:
            ids: int64 ``[N, K]``, content tokens (without start, end and padding).
            embeddings: ``[N, K, Σ width]``, what the text encoders read instead of the tokens'
                own embeddings, those of all towers side by side; None: their own.

        Returns:
            Of N prompts, on the model's device; for whole prompts the same as
            :meth:`encode_prompts`.
        """

    @abstractmethod
    def summary(self, conditioning: Conditioning, length: int) -> Tensor:
        """What stands for whole prompts of ``length`` content tokens in their conditioning.

        Returns:
            ``[N, width]``: what the text encoders have gathered at the end token, and their pooled
            embedding where there is one.
        """

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's prediction in the scheduler's prediction type.

        Args:
            noisy: noised latents ``[N, C, h, w]`` of any floating type, on any device.
            timesteps: int64 ``[N]``.
            conditioning: of N prompts.

        Returns:
            ``[N, C, h, w]`` on the model's device, in its precision.
        """

    def unconditional(self) -> Conditioning:
        """Conditioning that the family's sampler uses where there is no prompt, one row."""
        return self.encode_prompts([""])

    @torch.no_grad()
    def encode_images(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Posterior of the autoencoder in the UNet's latent scale.

        Args:
            images: uint8 ``[N, H, W, 3]``.

        Returns:
            Mean and standard deviation, each ``[N, C, h, w]`` in the autoencoder's precision.
        """
        vae = self.pipeline.vae
        # The original SDXL autoencoder overflows in half precision, and says so.
        narrow = vae.dtype if vae.dtype == torch.float16 and vae.config.force_upcast else None
        if narrow:
            vae.to(dtype=torch.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        posterior = vae.encode(pixels.to(self.device, vae.dtype) / 127.5 - 1).latent_dist
        scale = vae.config.scaling_factor
        mean, std = posterior.mean * scale, posterior.std * scale
        if narrow:
            vae.to(dtype=narrow)
        return mean, std

    @torch.no_grad()
    def decode_images(self, latents: Tensor) -> np.ndarray:
        """Images of latents, clean or noised.

        Args:
            latents: ``[N, C, h, w]`` in the UNet's scale, on any device.

        Returns:
            uint8 ``[N, H, W, 3]``.
        """
        vae = self.pipeline.vae
        scaled = latents.to(self.device, vae.dtype) / vae.config.scaling_factor
        pixels = vae.decode(scaled, return_dict=False)[0]
        return _to_uint8(self.pipeline.image_processor.postprocess(pixels, output_type="np"))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Forward diffusion ``x_t``, ``[N, C, h, w]``, at ``timesteps`` int64 ``[N]``."""
        return self.noise_schedule.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet should predict.

        Raises:
            ValueError: the scheduler predicts something else than noise or velocity.
        """
        kind = self.noise_schedule.config.prediction_type
        if kind == "epsilon":
            return noise
        if kind == "v_prediction":
            return self.noise_schedule.get_velocity(latents, noise, timesteps)
        raise ValueError(
            f"scheduler.prediction_type is {kind!r}; training knows 'epsilon' and 'v_prediction'"
        )

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        parameters: SamplingParameters,
        progress: str | None = None,
    ) -> np.ndarray:
        """Draw one image per prompt.

        Each image starts from noise of its own seed, drawn on the CPU, so it depends neither on
        its neighbours in the batch nor on the device; the size of the batch changes it by rounding
        alone (at most one grey level, in one of 20,000 values of pictograms).

        Args:
            prompts: N prompts.
            seeds: N seeds.
            parameters: steps, guidance, resolution and batch size.
            progress: description of a progress bar; None shows none.

        Returns:
            uint8 ``[N, H, W, 3]``.
        """
        if len(prompts) != len(seeds):
            raise ValueError(
                f"every prompt needs a seed: {len(prompts)} prompts, {len(seeds)} seeds"
            )
        images = []
        starts = range(0, len(prompts), parameters.batch_size)
        for start in progress_bar(starts, desc=progress, disable=progress is None):
            rows = slice(start, start + parameters.batch_size)
            out = self.pipeline(
                list(prompts[rows]),
                height=parameters.resolution,
                width=parameters.resolution,
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds[rows]],
                num_inference_steps=parameters.steps,
                guidance_scale=parameters.guidance_scale,
                output_type="np",
            ).images
            images.append(_to_uint8(out))
        return np.concatenate(images)


def _to_uint8(images: np.ndarray) -> np.ndarray:
    """Values in 0–1 as grey levels."""
    return (images * 255).round().astype(np.uint8)
