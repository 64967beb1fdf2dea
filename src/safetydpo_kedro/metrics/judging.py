"""All judges and measures over a table of images, a batch of rows at a time.

An image is decoded once for all of them, and embedded once for Q16, CLIPScore and distances that
use the same network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetydpo_kedro.images import decode_images
from safetydpo_kedro.metrics.checker import ImageChecker, check_images, load_checker
from safetydpo_kedro.metrics.clip import ClipModel
from safetydpo_kedro.metrics.clip_score import clip_scores
from safetydpo_kedro.metrics.config import CheckerConfig, JudgesConfig
from safetydpo_kedro.metrics.nudity import LABELS, NudityJudge
from safetydpo_kedro.metrics.q16 import check_prompts, q16_score
from safetydpo_kedro.metrics.verdicts import CLASSIFIER, FEATURES, NUDENET, label_column
from safetydpo_kedro.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.metrics.classifier import ImageClassifier
    from safetydpo_kedro.metrics.inception import InceptionNetwork


@dataclass(frozen=True)
class Panel:
    """Everything that looks at images.

    Attributes:
        clip: embeds images for Q16.
        q16_prompts: prompt embeddings of Q16, ``[2, D]``.
        nudity: NudeNet.
        score_clip: CLIP model of CLIPScore; None: that of Q16.
        network: features for FID and KID; None: the embeddings that Q16 reads.
        classifier: a third judge.
        checker: an independent look at what images show.

    Raises:
        ValueError: the prompts are not two.
    """

    clip: ClipModel
    q16_prompts: NDArray[np.floating]
    nudity: NudityJudge
    score_clip: ClipModel | None = None
    network: InceptionNetwork | None = None
    classifier: ImageClassifier | None = None
    checker: ImageChecker | None = None

    def __post_init__(self) -> None:
        """Refuse anything but two prompts."""
        check_prompts(self.q16_prompts)

    def look(self, images: NDArray[np.uint8], prompts: Sequence[str]) -> pd.DataFrame:
        """Raw scores of images.

        Args:
            images: uint8 ``[N, H, W, 3]``.
            prompts: N texts that the images were drawn for.

        Returns:
            One row per image: ``q16_score``, ``nudenet:<class>``, ``classifier:<label>`` if there
            is a third judge, ``clip_score``, the checker's answers, and ``features``, float32
            ``[D]``.

        Raises:
            ValueError: the Q16 prompts belong to another CLIP model.
        """
        embedded = self.clip.encode_images(images, normalize=False)
        columns: dict[str, Any] = {"q16_score": q16_score(embedded, self.q16_prompts)}
        columns |= _by_label(NUDENET, LABELS, self.nudity.label_scores(images))
        if self.classifier is not None:
            scores = self.classifier.classify(images)
            columns |= _by_label(CLASSIFIER, self.classifier.labels, scores)
        scorer = self.score_clip or self.clip
        pictures = embedded if scorer is self.clip else scorer.encode_images(images)
        columns["clip_score"] = clip_scores(pictures, scorer.encode_texts(prompts))
        if self.checker is not None:
            columns |= dict(check_images(self.checker, images, prompts))
        features = embedded if self.network is None else self.network.encode_images(images)
        columns[FEATURES] = list(features)
        return pd.DataFrame(columns)

    def describe(self) -> dict[str, Any]:
        """Names, versions and hashes of all that looks at images, as plain values."""
        prompts = np.ascontiguousarray(self.q16_prompts, np.float32)
        described = {
            "q16": {
                "clip": _identity(self.clip),
                "prompts_sha256": hashlib.sha256(prompts.tobytes()).hexdigest(),
            },
            "nudenet": {
                "name": self.nudity.version,
                "weights_sha256": self.nudity.weights_sha256,
                **self.nudity.config.model_dump(mode="json"),
            },
            "clip_score": _identity(self.score_clip or self.clip),
            "distances": _identity(self.network or self.clip),
        }
        if self.classifier is not None:
            labels = {"labels": list(self.classifier.labels)}
            described[CLASSIFIER] = _identity(self.classifier) | labels
        return described


def make_panel(
    *,
    judge_clip: ClipModel,
    q16_prompts: Mapping[str, Tensor],
    judges: JudgesConfig,
    checker: CheckerConfig | None = None,
    score_clip: ClipModel | None = None,
    extra_judge: ImageClassifier | None = None,
    fid_network: InceptionNetwork | None = None,
) -> Panel:
    """The panel as the configuration names it; it loads NudeNet and the checker.

    Args:
        judge_clip: embeds images for Q16.
        q16_prompts: its prompt embeddings, ``[2, D]`` under ``prompts``.
        judges: how they look.
        checker: which independent look to take; None: none.
        score_clip: CLIP model of CLIPScore; None: that of Q16.
        extra_judge: a third judge.
        fid_network: network of FID and KID; None: the CLIP model of Q16.
    """
    return Panel(
        clip=judge_clip,
        q16_prompts=q16_prompts["prompts"].numpy(),
        nudity=NudityJudge(judges.nudity),
        score_clip=score_clip,
        network=fid_network,
        classifier=extra_judge,
        checker=load_checker(checker.checker, checker.arguments) if checker else None,
    )


def look_at_table(
    panel: Panel,
    table: pd.DataFrame,
    batch_rows: int,
    *,
    image: str = "image",
    prompt: str = "prompt",
    progress: bool = True,
) -> pd.DataFrame:
    """Raw scores of all images of a table.

    Args:
        panel: of judges and measures.
        table: one row per image.
        batch_rows: images decoded at a time.
        image: column of encoded images.
        prompt: column of prompts.
        progress: show a progress bar.

    Returns:
        See :meth:`Panel.look`; the table's index.

    Raises:
        ValueError: the table is empty.
    """
    if table.empty:
        raise ValueError("no images to judge: the table has 0 rows, expected at least 1")
    starts = range(0, len(table), batch_rows)
    parts = []
    for start in progress_bar(starts, desc="judging", leave=False, disable=not progress):
        rows = table.iloc[start : start + batch_rows]
        parts.append(panel.look(decode_images(rows[image]), rows[prompt].tolist()))
    return pd.concat(parts, ignore_index=True).set_index(table.index)


def _by_label(
    judge: str, labels: Sequence[str], scores: NDArray[np.floating]
) -> dict[str, NDArray[np.floating]]:
    return {label_column(judge, label): scores[:, i] for i, label in enumerate(labels)}


def _identity(model: Any) -> dict[str, str]:
    return {"name": model.name, "weights_sha256": model.weights_sha256}
