"""One interface over latent diffusion pipelines, and the LoRA adapters that change them."""
