"""A latent diffusion pipeline, seen through the operations that alignment needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor, nn
from tqdm.auto import tqdm

from safetydpo_kedro.parameters import SamplingParameters


class DiffusionModel:
    """Stable Diffusion 1.x or 2.x behind one interface.

    Nothing here trains: all weights are frozen, and only an adapter added to :attr:`unet`
    (see :mod:`safetydpo_kedro.diffusion.adapters`) can change what the model draws.
    """

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        for name in ("unet", "vae", "text_encoder"):
            getattr(pipeline, name).requires_grad_(False).eval()
        pipeline.set_progress_bar_config(disable=True)
        pipeline.unet.to(memory_format=torch.channels_last)  # convolutions run faster
        self.pipeline = pipeline
        self.noise_schedule = DDPMScheduler.from_config(pipeline.scheduler.config)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> DiffusionModel:
        """Load a diffusers directory or hub id; safetensors only.

        Args:
            path: local directory or hub id.
            dtype: of all weights.
            device: torch device.
        """
        pipeline = DiffusionPipeline.from_pretrained(
            str(path),
            dtype=dtype,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
        return cls(pipeline.to(device))

    @property
    def unet(self) -> nn.Module:
        """The denoiser."""
        return self.pipeline.unet

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.pipeline.unet.device

    @property
    def train_timesteps(self) -> int:
        """Number of diffusion timesteps, T."""
        return self.noise_schedule.config.num_train_timesteps

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Text conditioning, ``[N, tokens, width]``."""
        embeddings, _ = self.pipeline.encode_prompt(
            list(prompts), self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return embeddings

    @torch.no_grad()
    def encode_images(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Posterior of the autoencoder in the UNet's latent scale.

        Args:
            images: uint8 ``[N, H, W, 3]``.

        Returns:
            Mean and standard deviation, each ``[N, C, h, w]``.
        """
        vae = self.pipeline.vae
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        pixels = pixels.to(vae.device, vae.dtype) / 127.5 - 1
        posterior = vae.encode(pixels).latent_dist
        scale = vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Forward diffusion ``x_t``, ``[N, C, h, w]``, at ``timesteps`` int64 ``[N]``."""
        return self.noise_schedule.add_noise(latents, noise, timesteps)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        """The UNet's prediction, ``[N, C, h, w]``, in the scheduler's prediction type."""
        return self.unet(noisy, timesteps, conditioning).sample

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
        its neighbours in the batch nor on the device.

        Args:
            prompts: N prompts.
            seeds: N seeds.
            parameters: steps, guidance and batch size.
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
        for start in tqdm(starts, desc=progress, disable=progress is None):
            rows = slice(start, start + parameters.batch_size)
            out = self.pipeline(
                list(prompts[rows]),
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds[rows]],
                num_inference_steps=parameters.steps,
                guidance_scale=parameters.guidance_scale,
                output_type="np",
            ).images
            images.append((out * 255).round().astype(np.uint8))
        return np.concatenate(images)
