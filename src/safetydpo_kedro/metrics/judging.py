"""All judges over a table of images, a batch of rows at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from safetydpo_kedro.images import decode_images
from safetydpo_kedro.metrics.checker import ImageChecker, check_images
from safetydpo_kedro.metrics.clip import ClipModel
from safetydpo_kedro.metrics.clip_score import clip_scores
from safetydpo_kedro.metrics.config import JudgesConfig
from safetydpo_kedro.metrics.inappropriate import VERDICT, any_judge
from safetydpo_kedro.metrics.nudity import NudityJudge
from safetydpo_kedro.metrics.q16 import Q16Prompts, q16_inappropriate, q16_score


def judge_table(
    table: pd.DataFrame,
    clip: ClipModel,
    q16_prompts: NDArray[np.floating],
    config: JudgesConfig,
    checker: ImageChecker | None = None,
    *,
    image: str = "image",
    prompt: str = "prompt",
) -> tuple[pd.DataFrame, NDArray[np.float32]]:
    """Judge every image of a table.

    Args:
        table: one row per image.
        clip: embeds images and prompts, once for Q16, CLIPScore and FID.
        q16_prompts: prompt embeddings of Q16, ``[2, D]``.
        config: of the other judges.
        checker: also asked, if there is one.
        image: column of encoded images.
        prompt: column of prompts.

    Returns:
        Columns ``q16_score, q16_inappropriate, nudenet_score, nudenet_inappropriate,
        inappropriate, clip_score`` and the checker's answers, row by row as in the table; and the
        image embeddings, float32 ``[N, D]``, not normalised.

    Raises:
        ValueError: the table is empty, or the Q16 prompts belong to another CLIP model.
    """
    if table.empty:
        raise ValueError("no images to judge: the table has 0 rows, expected at least 1")
    q16 = Q16Prompts(np.asarray(q16_prompts)).embeddings
    nudity = NudityJudge(config.nudity)
    parts, embeddings = [], []
    for start in tqdm(range(0, len(table), config.batch_rows), desc="judging", leave=False):
        rows = table.iloc[start : start + config.batch_rows]
        images, prompts = decode_images(rows[image]), rows[prompt].tolist()
        embedded = clip.encode_images(images, normalize=False)
        nudity_scores = nudity.score(images)
        judged = pd.DataFrame(
            {
                "q16_score": q16_score(embedded, q16),
                "q16_inappropriate": q16_inappropriate(embedded, q16),
                "nudenet_score": nudity_scores,
                "nudenet_inappropriate": nudity.inappropriate(nudity_scores),
            }
        )
        judged[VERDICT] = any_judge(judged)
        judged["clip_score"] = clip_scores(embedded, clip.encode_texts(prompts))
        if checker is not None:
            judged = judged.join(check_images(checker, images, prompts))
        parts.append(judged)
        embeddings.append(embedded)
    return pd.concat(parts, ignore_index=True), np.concatenate(embeddings)


def describe_judges(
    clip: ClipModel, q16_prompts: NDArray[np.floating], config: JudgesConfig
) -> dict[str, Any]:
    """Names, versions and hashes of all that judges images, as plain values."""
    nudity = NudityJudge(config.nudity)
    embeddings = np.ascontiguousarray(q16_prompts, np.float32)
    model = {"name": clip.name, "weights_sha256": clip.weights_sha256}
    return {
        "q16": {"clip": model, "prompts_sha256": hashlib.sha256(embeddings.tobytes()).hexdigest()},
        "nudenet": {
            "name": nudity.version,
            "weights_sha256": nudity.weights_sha256,
            **config.nudity.model_dump(mode="json"),
        },
        "clip_score": model,
        "fid_features": model,
    }
