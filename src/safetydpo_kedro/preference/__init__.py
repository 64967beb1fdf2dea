"""Preference training: pairs and latent cache, the DPO loss, the trainer of one expert."""
