"""Fréchet distance between two sets of image features, through torchmetrics.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule …", NeurIPS 2017: with mean μ and
covariance Σ (unbiased, n - 1) of the features of real (r) and generated (g) images::

    d² = |μ_r - μ_g|² + tr(Σ_r + Σ_g - 2 (Σ_r Σ_g)^½)

It is called FID when the features are Inception's 2048. Features of another network, such as the
image tower of a CLIP model, give numbers on another scale, comparable only among themselves.

Small samples: the estimate is biased upwards, about as 1/n (Chong and Forsyth, "Effectively
Unbiased FID and Inception Score", CVPR 2020), and covariances of n ≤ D images are singular.
torchmetrics takes the trace of the matrix root from the eigenvalues of Σ_r Σ_g and drops the
imaginary part that rounding gives to vanishing ones, so the result stays finite. Compare only
distances over equally many images; :mod:`safetydpo_kedro.metrics.kid` has no such bias.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance


class FeatureIdentity(nn.Module):
    """Feature "network" for features that are already computed.

    Attributes:
        num_features: D; torchmetrics reads it instead of probing with a random image.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` ``[N, D]`` as they are."""
        return features


def frechet_distance(real: NDArray[np.floating], generated: NDArray[np.floating]) -> float:
    """Fréchet distance d² between two sets of features, in float64.

    Args:
        real: features of the reference images, ``[N, D]``.
        generated: features of the judged images, ``[M, D]``.

    Returns:
        A number ≥ 0 up to rounding; 0 for equal means and covariances.

    Raises:
        ValueError: the widths differ, or a set has fewer than two images.

    Example:
        >>> features = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> round(frechet_distance(features, features + 1.0), 6)
        2.0
    """
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"Fréchet distance needs features [N, D] and [M, D], "
            f"got {real.shape} and {generated.shape}"
        )
    if min(len(real), len(generated)) < 2:
        raise ValueError(
            f"Fréchet distance needs at least 2 images on each side, "
            f"got {len(real)} real and {len(generated)} generated"
        )
    metric = FrechetInceptionDistance(feature=FeatureIdentity(real.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(np.array(real, np.float64)), real=True)
    metric.update(torch.from_numpy(np.array(generated, np.float64)), real=False)
    return float(metric.compute())


def small_sample_warning(real: int, generated: int, dimension: int) -> str | None:
    """What to say about a Fréchet distance over few images, None if they are enough.

    A covariance of n images has rank n - 1 at most, so up to n = ``dimension`` it is singular
    whatever the distribution: the authors' code (github.com/bioinf-jku/TTUR) asks for more images
    than dimensions, and recommends 10,000. Beyond that the bias falls about as 1/n (Chong and
    Forsyth, CVPR 2020) and never ends; this project warns up to twice the dimensions.

    Args:
        real: reference images.
        generated: judged images.
        dimension: D, width of the features.

    Returns:
        One sentence with the numbers and what to do.

    Example:
        >>> small_sample_warning(50_000, 10_000, 2048)
        >>> small_sample_warning(500, 126, 2048)[:55]
        'FID over 500 real and 126 generated images in 2048 dime'
    """
    fewest = min(real, generated)
    if fewest > 2 * dimension:
        return None
    singular = " and a covariance is singular" if fewest <= dimension else ""
    return (
        f"FID over {real} real and {generated} generated images in {dimension} dimensions is "
        f"biased upwards{singular}: compare it only between equally many images, and read KID "
        f"beside it; more than {2 * dimension} images of each would do"
    )
