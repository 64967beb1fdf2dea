"""Nodes of ``evaluation`` that draw: every variant, every prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.baselines.config import SldConfig
from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.parameters import DrawingParameters

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.datasets.external_models import ExternalModel
    from safetydpo_kedro.diffusion.drawing import Sampler
    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = ExternalModel = LoraAdapter = Tensor = object

COVERED = ("evaluation_prompts", "skip", "external_models")


def draw_images(
    base_model: DiffusionModel,
    evaluation_prompts: pd.DataFrame,
    drawing: DrawingParameters,
    skip: bool = False,
    adapter: LoraAdapter | None = None,
    *,
    variant: str,
) -> KeyedPlan:
    """Draw every prompt with the base model, or with an adapter fused into it.

    Args:
        base_model: the model.
        evaluation_prompts: one row per prompt, see :func:`collect_benchmarks`.
        drawing: how images are drawn, and how many make a shard.
        skip: leave the variant out; there are no shards then.
        adapter: fused into the model while it draws.
        variant: name of this one; the last argument, because Kedro counts those before it.

    Returns:
        Shards of the prompt table with the columns ``variant``, ``image``, ``image_sha256`` and
        ``weights_sha256``, of the adapter or of the base model.

    Raises:
        ValueError: a prompt that is excluded by rule.
    """
    from safetydpo_kedro.diffusion.adapters import fused
    from safetydpo_kedro.digests import tensors_digest
    from safetydpo_kedro.merging.profile import expert_digest

    if skip:
        return plan_rows([], drawing.shard_size, COVERED)
    sample = _patched(base_model, partial(fused, base_model.unet, adapter))
    digest = expert_digest(adapter) if adapter else tensors_digest(base_model.unet.state_dict())
    return plan_drawing(evaluation_prompts, drawing, [(variant, sample, digest)])


def draw_edited(
    base_model: DiffusionModel,
    evaluation_prompts: pd.DataFrame,
    drawing: DrawingParameters,
    skip: bool,
    weights: dict[str, Tensor],
    *,
    variant: str,
) -> KeyedPlan:
    """Draw every prompt with some weights of the base model replaced; see :func:`draw_images`."""
    from safetydpo_kedro.diffusion.weights import replaced
    from safetydpo_kedro.digests import tensors_digest

    if skip:
        return plan_rows([], drawing.shard_size, COVERED)
    sample = _patched(base_model, partial(replaced, base_model.unet, weights))
    return plan_drawing(evaluation_prompts, drawing, [(variant, sample, tensors_digest(weights))])


def draw_guided(
    base_model: DiffusionModel,
    evaluation_prompts: pd.DataFrame,
    drawing: DrawingParameters,
    skip: bool,
    guidance: SldConfig,
    *,
    variant: str,
) -> KeyedPlan:
    """Draw every prompt under Safe Latent Diffusion; see :func:`draw_images`."""
    from safetydpo_kedro.baselines.sld import sample_safely

    if skip:
        return plan_rows([], drawing.shard_size, COVERED)

    def sample(prompts, seeds, sampling):
        return sample_safely(base_model, prompts, seeds, sampling, guidance)

    return plan_drawing(evaluation_prompts, drawing, [(variant, sample, fingerprint(guidance))])


def draw_external(
    base_model: DiffusionModel,
    evaluation_prompts: pd.DataFrame,
    drawing: DrawingParameters,
    external_models: list[ExternalModel],
) -> KeyedPlan:
    """Draw every prompt with every model of somebody else's; see :func:`draw_images`.

    A LoRA is fused into the base model, a pipeline draws by itself.

    Raises:
        ValueError: a model is named like one of the project's own variants.
    """
    from safetydpo_kedro.settings import VARIANTS

    taken = sorted({model.name for model in external_models} & set(VARIANTS))
    if taken:
        raise ValueError(f"external_models: {taken} are names of this project's variants; rename")
    samplers = [(model.name, model.sampler(base_model), model.sha256) for model in external_models]
    return plan_drawing(evaluation_prompts, drawing, samplers)


def _patched(model: DiffusionModel, patch: Callable) -> Sampler:
    """Draw with a changed denoiser."""

    def sample(prompts, seeds, sampling):
        with patch():
            return model.sample(prompts, seeds, sampling)

    return sample


def plan_drawing(
    prompts: pd.DataFrame, drawing: DrawingParameters, variants: Sequence[tuple[str, Sampler, str]]
) -> KeyedPlan:
    """Shards of every variant and benchmark; another benchmark leaves those of the others alone.

    Args:
        prompts: all prompts.
        drawing: how images are drawn, and how many make a shard.
        variants: name, what draws, and a fingerprint of it.
    """
    from safetydpo_kedro.prompts.collect import excluded_prompts, refuse_excluded

    refuse_excluded(excluded_prompts(prompts), "evaluation prompts")
    parts = [
        (prompts.assign(variant=name, weights_sha256=identity), partial(_draw, sample, drawing))
        for name, sample, identity in variants
    ]
    return plan_rows(parts, drawing.shard_size, COVERED)


def plan_rows(
    parts: Iterable[tuple[pd.DataFrame, Callable[[pd.DataFrame], pd.DataFrame]]],
    size: int,
    covered: tuple[str, ...],
) -> KeyedPlan:
    """Shards of one variant and benchmark each, known by their rows.

    Args:
        parts: rows with ``variant`` and ``benchmark``, and what makes a shard of some of them.
        size: rows of a shard.
        covered: arguments of the node that the rows stand for; an image by its hash.
    """
    shards, keys, counts = {}, {}, {}
    for table, make in parts:
        for (variant, benchmark), group in table.groupby(["variant", "benchmark"], sort=False):
            for start in range(0, len(group), size):
                rows = group.iloc[start : start + size]
                name = f"{variant}-{benchmark}-{start // size:05d}"
                shards[name] = partial(make, rows)
                known = rows.drop(columns="image", errors="ignore")
                keys[name] = fingerprint(known.to_dict("list"))
                counts[name] = len(rows)
    return KeyedPlan(shards, keys, covered, counts)


def _draw(sample: Sampler, drawing: DrawingParameters, rows: pd.DataFrame) -> pd.DataFrame:
    from safetydpo_kedro.diffusion.drawing import draw_rows

    return draw_rows(sample, rows, drawing.sampling)
