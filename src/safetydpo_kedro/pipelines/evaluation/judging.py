"""Nodes of ``evaluation`` that look at images: judges, measures and distances."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.metrics.config import CheckerConfig, JudgesConfig, KidConfig, VerdictsConfig
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.pipelines.evaluation.drawing import plan_rows

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.metrics.classifier import ImageClassifier
    from safetydpo_kedro.metrics.clip import ClipModel
    from safetydpo_kedro.metrics.inception import InceptionNetwork
    from safetydpo_kedro.metrics.judging import Panel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    ClipModel = ImageClassifier = InceptionNetwork = Panel = Tensor = object

COVERED = ("images",)
DISTANCE_COLUMNS = ["variant", "benchmark", "references", "fid", "kid", "kid_std", "warning"]


def judge_images(
    images: pd.DataFrame,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    checker: CheckerConfig | None,
    score_clip: ClipModel | None = None,
    extra_judge: ImageClassifier | None = None,
    fid_network: InceptionNetwork | None = None,
) -> KeyedPlan:
    """Ask all judges and measures about every image.

    Args:
        images: drawn prompts with ``variant``, ``image`` and ``image_sha256``; may be empty.
        judge_clip: embeds images for Q16.
        q16_prompts: its prompt embeddings.
        judges: how they look.
        checker: an independent look at what images show.
        score_clip: CLIP model of CLIPScore; None: that of Q16.
        extra_judge: a third judge.
        fid_network: network of FID and KID; None: the CLIP model of Q16.

    Returns:
        Shards of the prompt table with raw scores and ``features``, one row per image.
    """
    from safetydpo_kedro.metrics.judging import make_panel

    if images.empty:
        return plan_rows([], judges.batch_rows, COVERED)
    panel = make_panel(
        judge_clip=judge_clip,
        q16_prompts=q16_prompts,
        judges=judges,
        checker=checker,
        score_clip=score_clip,
        extra_judge=extra_judge,
        fid_network=fid_network,
    )
    return plan_judging(panel, images, judges.batch_rows)


def plan_judging(panel: Panel, images: pd.DataFrame, batch_rows: int) -> KeyedPlan:
    """Shards of scores, ``batch_rows`` images of one variant and benchmark each."""
    return plan_rows([(images, partial(_judge, panel))], batch_rows, COVERED)


def _judge(panel: Panel, rows: pd.DataFrame) -> pd.DataFrame:
    from safetydpo_kedro.metrics.judging import look_at_table

    scores = look_at_table(panel, rows, len(rows), progress=False)
    return rows.drop(columns="image").join(scores)


def embed_references(
    reference_images: pd.DataFrame | None,
    judge_clip: ClipModel,
    fid_network: InceptionNetwork | None = None,
) -> dict[str, Tensor]:
    """Features of the real images that FID and KID compare with, ``[M, D]`` by benchmark.

    Without reference images there are none, and no distances in the tables.
    """
    import numpy as np
    import torch

    from safetydpo_kedro.images import decode_batches

    if reference_images is None:
        return {}
    plain = partial(judge_clip.encode_images, normalize=False)
    encode = plain if fid_network is None else fid_network.encode_images
    features = {}
    for benchmark, rows in reference_images.groupby("benchmark"):
        parts = [encode(images) for images in decode_batches(rows["image"])]
        features[str(benchmark)] = torch.from_numpy(np.concatenate(parts))
    return features


def measure_distances(
    judgements: pd.DataFrame, reference_features: dict[str, Tensor], kid: KidConfig
) -> pd.DataFrame:
    """FID and KID of every variant and benchmark that has reference images.

    Returns:
        ``variant, benchmark, references, fid, kid, kid_std, warning``; the last says where there
        are too few images for FID to mean much, and is None elsewhere.
    """
    import numpy as np

    from safetydpo_kedro.metrics.fid import frechet_distance, small_sample_warning
    from safetydpo_kedro.metrics.kid import kernel_distance

    rows = []
    groups = judgements.groupby(["variant", "benchmark"], sort=False) if len(judgements) else ()
    for (variant, benchmark), group in groups:
        reference = reference_features.get(benchmark)
        if reference is None or len(group) < 2:
            continue
        real, drawn = reference.numpy(), np.stack(group["features"])
        mean, std = kernel_distance(real, drawn, kid)
        rows.append(
            {
                "variant": variant,
                "benchmark": benchmark,
                "references": len(real),
                "fid": frechet_distance(real, drawn),
                "kid": mean,
                "kid_std": std,
                "warning": small_sample_warning(len(real), len(drawn), real.shape[1]),
            }
        )
    return pd.DataFrame(rows, columns=DISTANCE_COLUMNS)


def collect_scores(verdicts: VerdictsConfig, **judgements: pd.DataFrame) -> pd.DataFrame:
    """Verdicts on the images of all variants.

    Args:
        verdicts: what counts as inappropriate.
        judgements: raw scores of each variant, or of several external ones; may be empty.

    Returns:
        One row per image, ``variant`` in front.

    Raises:
        ValueError: no variant was drawn.
    """
    from safetydpo_kedro.metrics.verdicts import give_verdicts

    tables = [give_verdicts(table, verdicts) for table in judgements.values() if len(table)]
    if not tables:
        raise ValueError("there is nothing to report: evaluation.skip leaves all variants out")
    table = pd.concat(tables, ignore_index=True)
    return table[["variant", *table.columns.drop("variant")]]


def describe_judges(
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
    checker: CheckerConfig | None,
    drawing: DrawingParameters,
    score_clip: ClipModel | None = None,
    extra_judge: ImageClassifier | None = None,
    fid_network: InceptionNetwork | None = None,
) -> dict[str, Any]:
    """Which judges, of which version and weights, judged images drawn in which way."""
    from safetydpo_kedro.artifacts import package_versions
    from safetydpo_kedro.metrics.judging import make_panel

    panel = make_panel(
        judge_clip=judge_clip,
        q16_prompts=q16_prompts,
        judges=judges,
        score_clip=score_clip,
        extra_judge=extra_judge,
        fid_network=fid_network,
    )
    return {
        **panel.describe(),
        "verdicts": verdicts.model_dump(mode="json"),
        "checker": checker and _described(checker),
        "drawing": drawing.model_dump(mode="json"),
        "versions": package_versions(),
    }


def _described(checker: CheckerConfig) -> dict[str, Any]:
    """A checker, with hashes of the files that it is made of."""
    from safetydpo_kedro.artifacts import file_digest

    files = {str(path): file_digest(path) for path in checker.files}
    return checker.model_dump(mode="json") | {"files_sha256": files}
