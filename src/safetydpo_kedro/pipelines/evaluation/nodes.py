"""Nodes of ``evaluation``: thin wrappers of ``diffusion``, ``metrics`` and ``reporting``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.datasets.sharded import plan_shards
from safetydpo_kedro.metrics.config import BootstrapConfig, CheckerConfig, JudgesConfig
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.reporting.config import GridConfig, TargetsConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from plotly.graph_objects import Figure as Chart
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.metrics.clip import ClipModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    Chart = ClipModel = DiffusionModel = Figure = LoraAdapter = Tensor = object

PROMPT_COLUMNS = ["benchmark", "prompt_id", "category", "concept", "prompt", "seed"]
FORMATS = {"fid": ".4g", "clip_score": ".2f"}


def collect_benchmarks(
    test_prompts: pd.DataFrame, neutral_test_prompts: pd.DataFrame
) -> pd.DataFrame:
    """All prompts of the evaluation; an unsafe prompt and its safe counterpart share their seed.

    Args:
        test_prompts: held-out pairs: pair_id, category, concept, unsafe_prompt, safe_prompt, seed.
        neutral_test_prompts: prompt_id, concept, prompt, seed.

    Returns:
        ``benchmark`` (unsafe, safe, neutral), ``prompt_id, category`` (None for neutral prompts),
        ``concept`` (of the pair, also for safe prompts), ``prompt, seed``.
    """
    pairs = test_prompts.rename(columns={"pair_id": "prompt_id"})
    parts = [
        pairs.assign(benchmark=benchmark, prompt=pairs[f"{benchmark}_prompt"])
        for benchmark in ("unsafe", "safe")
    ]
    parts.append(neutral_test_prompts.assign(benchmark="neutral", category=None))
    return pd.concat([part[PROMPT_COLUMNS] for part in parts], ignore_index=True)


def draw_images(
    base_model: DiffusionModel,
    evaluation_prompts: pd.DataFrame,
    parameters: DrawingParameters,
    adapter: LoraAdapter | None = None,
) -> dict[str, Callable[[], pd.DataFrame]]:
    """Draw every prompt with the base model, or with an adapter fused into it.

    Returns:
        Shards of the prompt table with a column ``image``.

    Raises:
        ValueError: a prompt that is excluded by rule.
    """
    from safetydpo_kedro.diffusion.adapters import fused
    from safetydpo_kedro.images import encode_images
    from safetydpo_kedro.prompts.collect import excluded_prompts, refuse_excluded

    refuse_excluded(excluded_prompts(evaluation_prompts), "evaluation prompts")

    def draw(rows: slice) -> pd.DataFrame:
        prompts = evaluation_prompts.iloc[rows]
        with fused(base_model.unet, adapter):
            images = base_model.sample(
                prompts["prompt"].tolist(), prompts["seed"].tolist(), parameters.sampling
            )
        names = prompts["benchmark"] + "-" + prompts["prompt_id"]
        return prompts.assign(image=encode_images(images, names)).reset_index(drop=True)

    return plan_shards(len(evaluation_prompts), parameters.shard_size, draw)


def judge_images(
    images: pd.DataFrame,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    checker: CheckerConfig | None,
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Ask all judges, and the independent checker if there is one, about every image.

    Returns:
        The prompt table with raw scores and verdicts, and the CLIP embeddings of the images
        (``clip``, ``[N, D]``, not normalised) in the order of the rows.
    """
    import torch

    from safetydpo_kedro.metrics.checker import load_checker
    from safetydpo_kedro.metrics.judging import judge_table

    scores, features = judge_table(
        images,
        judge_clip,
        q16_prompts["prompts"].numpy(),
        judges,
        load_checker(checker.checker, checker.arguments) if checker else None,
    )
    return images.drop(columns="image").join(scores), {"clip": torch.from_numpy(features)}


def collect_scores(**scores: pd.DataFrame) -> pd.DataFrame:
    """Judged images of all variants, with the column ``variant`` in front.

    Args:
        scores: variant → judged images.
    """
    tables = [table.assign(variant=variant) for variant, table in scores.items()]
    table = pd.concat(tables, ignore_index=True)
    return table[["variant", *table.columns.drop("variant")]]


def embed_references(
    reference_images: pd.DataFrame | None, judge_clip: ClipModel
) -> dict[str, Tensor]:
    """CLIP embeddings of the real images that FID compares with, ``[M, D]`` by benchmark.

    Without reference images there are none, and no FID in the tables.
    """
    import torch

    from safetydpo_kedro.images import decode_images

    if reference_images is None:
        return {}
    return {
        str(benchmark): torch.from_numpy(
            judge_clip.encode_images(decode_images(rows["image"]), normalize=False)
        )
        for benchmark, rows in reference_images.groupby("benchmark")
    }


def tabulate_benchmarks(
    image_scores: pd.DataFrame,
    reference_features: dict[str, Tensor],
    bootstrap: BootstrapConfig,
    **features: dict[str, Tensor],
) -> tuple[pd.DataFrame, str]:
    """IP, FID, CLIPScore and accuracies by variant and benchmark, as a table and as Markdown.

    Args:
        image_scores: judged images of all variants.
        reference_features: embeddings of the real images, by benchmark.
        bootstrap: of the interval of IP.
        features: variant → embeddings of its images, in the order of its rows.
    """
    import numpy as np

    from safetydpo_kedro.metrics.checker import checker_means
    from safetydpo_kedro.reporting.tables import KEY, benchmark_table, to_markdown

    variants = image_scores["variant"].unique()
    table = benchmark_table(
        image_scores,
        np.concatenate([features[variant]["clip"].numpy() for variant in variants]),
        {benchmark: tensor.numpy() for benchmark, tensor in reference_features.items()},
        checker_means(image_scores, KEY),
        bootstrap,
    )
    return table, to_markdown(table, FORMATS)


def tabulate_categories(
    image_scores: pd.DataFrame, bootstrap: BootstrapConfig
) -> tuple[pd.DataFrame, Chart]:
    """IP and accuracies on unsafe prompts by variant and category, and IP as a chart."""
    from safetydpo_kedro.metrics.checker import checker_means
    from safetydpo_kedro.reporting.figures import ip_by_category_figure
    from safetydpo_kedro.reporting.tables import per_category_table

    keys = ["variant", "category"]
    unsafe = image_scores[image_scores["benchmark"] == "unsafe"]
    table = per_category_table(image_scores, "unsafe", bootstrap)
    table = table.merge(checker_means(unsafe, keys), on=keys, how="left")
    return table, ip_by_category_figure(table)


def compare_with_targets(
    image_scores: pd.DataFrame, benchmark_table: pd.DataFrame, targets: TargetsConfig | None
) -> pd.DataFrame:
    """The key figures, beside their targets if there are any."""
    from safetydpo_kedro.reporting.key_figures import key_figures

    return key_figures(image_scores, benchmark_table, targets)


def plot_examples(
    evaluation_prompts: pd.DataFrame,
    image_scores: pd.DataFrame,
    parameters: GridConfig,
    **images: pd.DataFrame,
) -> Figure:
    """The same prompts and seeds drawn by several variants, base on top.

    Args:
        evaluation_prompts: one row per prompt.
        image_scores: judged images of all variants.
        parameters: how many prompts of each kind, and what to blur.
        images: variant → its images, in the order of the prompts.
    """
    from safetydpo_kedro.images import decode_images
    from safetydpo_kedro.reporting.examples import example_rows
    from safetydpo_kedro.reporting.grids import qualitative_grid

    rows = example_rows(evaluation_prompts, parameters)
    flags = dict(tuple(image_scores.groupby("variant")["inappropriate"]))
    return qualitative_grid(
        {variant: decode_images(table["image"].iloc[rows]) for variant, table in images.items()},
        evaluation_prompts["prompt"].iloc[rows].tolist(),
        blur=parameters.blur,
        flagged={variant: flags[variant].iloc[rows].tolist() for variant in images},
    )


def describe_judges(
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    checker: CheckerConfig | None,
    drawing: DrawingParameters,
) -> dict[str, Any]:
    """Which judges, of which version and weights, judged images drawn in which way."""
    from safetydpo_kedro.artifacts import package_versions
    from safetydpo_kedro.metrics.judging import describe_judges

    return {
        **describe_judges(judge_clip, q16_prompts["prompts"].numpy(), judges),
        "checker": checker and checker.model_dump(mode="json"),
        "drawing": drawing.model_dump(mode="json"),
        "versions": package_versions(),
    }
