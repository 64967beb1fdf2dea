"""Nodes of ``evaluation`` that draw: every variant, every prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    skip: bool,
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
        return KeyedPlan({}, {}, COVERED)
    sample = _patched(base_model, partial(fused, base_model.unet, adapter))
    digest = expert_digest(adapter) if adapter else tensors_digest(base_model.unet.state_dict())
    return _plan(evaluation_prompts, drawing, [(variant, sample, digest)])


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
        return KeyedPlan({}, {}, COVERED)
    sample = _patched(base_model, partial(replaced, base_model.unet, weights))
    return _plan(evaluation_prompts, drawing, [(variant, sample, tensors_digest(weights))])


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
        return KeyedPlan({}, {}, COVERED)

    def sample(prompts, seeds, sampling):
        return sample_safely(base_model, prompts, seeds, sampling, guidance)

    return _plan(evaluation_prompts, drawing, [(variant, sample, fingerprint(guidance))])


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
    return _plan(evaluation_prompts, drawing, samplers)


def _patched(model: DiffusionModel, patch: Callable) -> Sampler:
    """Draw with a changed denoiser."""

    def sample(prompts, seeds, sampling):
        with patch():
            return model.sample(prompts, seeds, sampling)

    return sample


def _plan(
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
    shards, keys, counts = {}, {}, {}
    for variant, sample, identity in variants:
        for benchmark, rows in chunks(prompts, drawing.shard_size):
            marked = rows.assign(variant=variant, weights_sha256=identity)
            name = f"{variant}-{benchmark}"
            shards[name] = partial(_draw, sample, marked, drawing)
            keys[name], counts[name] = fingerprint(marked.to_dict("list")), len(rows)
    return KeyedPlan(shards, keys, COVERED, counts)


def chunks(table: pd.DataFrame, size: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of a table, benchmark by benchmark, and the name of each chunk."""
    for benchmark, rows in table.groupby("benchmark", sort=False):
        for start in range(0, len(rows), size):
            yield f"{benchmark}-{start // size:05d}", rows.iloc[start : start + size]


def _draw(sample: Sampler, rows: pd.DataFrame, drawing: DrawingParameters) -> pd.DataFrame:
    from safetydpo_kedro.diffusion.drawing import draw_rows

    return draw_rows(sample, rows, drawing.sampling)
