"""CLIPScore: how well an image fits its prompt.

Hessel et al., "CLIPScore", EMNLP 2021, in the form torchmetrics and the text-to-image papers
report: ``100 · cos(image, text)``, without the paper's factor 2.5. The score of an image is kept
as it is, and only the mean is floored at 0, as torchmetrics does; Hessel et al. floor every image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clip_scores(images: NDArray[np.floating], texts: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores of N images against their N prompts.

    Args:
        images: image embeddings ``[N, D]``, of any length.
        texts: text embeddings ``[N, D]`` of the same CLIP model.

    Returns:
        float64 ``[N]``, ``100 · cos`` in [-100, 100].

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> clip_scores(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0]]))
        array([60.])
    """
    if images.shape != texts.shape or images.ndim != 2:
        raise ValueError(
            f"CLIPScore needs one text embedding per image embedding, "
            f"got images {images.shape} and texts {texts.shape}"
        )
    images, texts = np.asarray(images, np.float64), np.asarray(texts, np.float64)
    lengths = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    scores: NDArray[np.float64] = 100.0 * (images * texts).sum(axis=1) / lengths
    return scores


def mean_clip_score(scores: NDArray[np.floating]) -> float:
    """CLIPScore of a set of images: ``max(mean of 100 · cos, 0)``; NaN for an empty set."""
    return float(max(np.mean(scores, dtype=np.float64), 0.0)) if len(scores) else float("nan")
