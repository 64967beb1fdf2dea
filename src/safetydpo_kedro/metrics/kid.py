"""Kernel distance between two sets of image features, through torchmetrics.

Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, section 4: the squared maximum mean
discrepancy under the kernel ``k(x, y) = (x·y / D + 1)³``, in its unbiased form::

    MMD² = Σ_{i≠j} k(x_i, x_j) / m(m-1) + Σ_{i≠j} k(y_i, y_j) / m(m-1) - 2 Σ_{i,j} k(x_i, y_j) / m²

averaged over random subsets of m images. Unlike FID it is not biased by the number of images, and
it may be negative. It is called KID when the features are Inception's 2048.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from safetydpo_kedro.metrics.config import KidConfig


def kernel_distance(
    real: NDArray[np.floating], generated: NDArray[np.floating], config: KidConfig | None = None
) -> tuple[float, float]:
    """MMD² between two sets of features: mean and standard deviation over subsets, in float64.

    Args:
        real: features of the reference images, ``[N, D]``.
        generated: features of the judged images, ``[M, D]``.
        config: number, size and seed of the subsets. A subset is never larger than the smaller
            set; the same seed gives the same subsets, and the global generator is left alone.

    Returns:
        Mean, around 0 for sets of one distribution, and standard deviation (of the subsets, not of
        the mean).

    Raises:
        ValueError: the widths differ, or a set has fewer than two images.

    Example:
        >>> here, there = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
        >>> kernel_distance(here, there)
        (297.5, 0.0)
    """
    config = config or KidConfig()
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"kernel distance needs features [N, D] and [M, D], "
            f"got {real.shape} and {generated.shape}"
        )
    size = min(config.subset_size, len(real), len(generated))
    if size < 2:
        raise ValueError(
            f"kernel distance needs at least 2 images on each side, "
            f"got {len(real)} real and {len(generated)} generated"
        )
    # Subsets of all images are one and the same.
    subsets = 1 if len(real) == len(generated) == size else config.subsets
    x, y = (torch.from_numpy(np.array(f, np.float64)) for f in (real, generated))
    # A generator of its own: the global one would be shared with other threads.
    generator = torch.Generator().manual_seed(config.seed)

    def some(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:size]]

    distances = torch.stack([poly_mmd(some(x), some(y)) for _ in range(subsets)])
    return float(distances.mean()), float(distances.std(correction=0))
