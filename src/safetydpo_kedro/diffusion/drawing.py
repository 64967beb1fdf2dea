"""Tables of prompts → tables of images, whatever draws them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetydpo_kedro.images import encode_images
from safetydpo_kedro.parameters import SamplingParameters

Sampler = Callable[[Sequence[str], Sequence[int], SamplingParameters], NDArray[np.uint8]]


def draw_rows(sample: Sampler, prompts: pd.DataFrame, sampling: SamplingParameters) -> pd.DataFrame:
    """Draw one image for every prompt of a table.

    Args:
        sample: prompts, seeds and settings → uint8 images ``[N, H, W, 3]``.
        prompts: ``benchmark, prompt_id, prompt, seed, guidance_scale`` and any other columns. A
            guidance scale that is not NaN replaces that of ``sampling``; rows of one scale are
            drawn together.
        sampling: of the images.

    Returns:
        The rows, those of one guidance scale together, with the columns ``image`` (encoded) and
        ``image_sha256`` (64 hex digits of the encoded bytes).
    """
    parts = []
    for scale, rows in prompts.groupby("guidance_scale", sort=False, dropna=False):
        own = {} if pd.isna(scale) else {"guidance_scale": float(scale)}
        settings = sampling.model_copy(update=own)
        images = sample(rows["prompt"].tolist(), rows["seed"].tolist(), settings)
        encoded = encode_images(images, rows["benchmark"] + "-" + rows["prompt_id"])
        hashes = [hashlib.sha256(image["bytes"]).hexdigest() for image in encoded]
        parts.append(rows.assign(image=encoded, image_sha256=hashes))
    return pd.concat(parts, ignore_index=True)
