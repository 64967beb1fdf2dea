"""The world's autoencoder, with latents that are white channel by channel."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from safetydpo_kedro.pictograms.parameters import VaeParameters
from safetydpo_kedro.pictograms.training import step_generator, train
from safetydpo_kedro.pictograms.world import draw_random, to_model_range


def train_autoencoder(parameters: VaeParameters, checkpoints: Path) -> AutoencoderKL:
    """Train on L1 + MSE + ``kl_weight``·KL, then whiten the latents."""
    optimization = parameters.optimization
    torch.manual_seed(optimization.seed)
    vae = AutoencoderKL(**parameters.shape, scaling_factor=1.0)

    def loss(generator: torch.Generator) -> Tensor:
        images = to_model_range(draw_random(optimization.batch_size, generator)[0])
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        reconstruction = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean()
        return (
            F.l1_loss(reconstruction, images)
            + F.mse_loss(reconstruction, images)
            + parameters.kl_weight * kl
        )

    identity = {"parameters": parameters}
    train("VAE", {"model": vae}, loss, optimization, checkpoints, identity)
    whiten(vae, parameters.whitening_images, optimization.seed)
    return vae


@torch.no_grad()
def whiten(vae: AutoencoderKL, images: int, seed: int) -> None:
    """Fold each latent channel's mean and deviation into the quantisation convolutions.

    Afterwards latents have mean 0 and deviation 1 in every channel, the scaling factor is 1,
    and reconstructions are what they were.
    """
    pictures = draw_random(images, step_generator(seed, -1))[0]
    means = torch.cat(
        [vae.encode(to_model_range(batch)).latent_dist.mean for batch in pictures.split(256)]
    )
    mean, std = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    channels = len(mean)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()  # the other half of the channels is log-variance
    decode.bias += (decode.weight[:, :, 0, 0] * mean).sum(dim=1)
    decode.weight *= std[None, :, None, None]
