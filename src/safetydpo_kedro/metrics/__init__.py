"""Judges and measures of generated images: Q16, NudeNet, Inappropriate Probability, FID, CLIPScore.

Submodules are imported by name, so that reading a parameter model does not load torch.
"""
