"""Nodes of ``dataset_generation``: thin wrappers of ``prompts`` and ``preference``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.datasets.sharded import plan_shards
from safetydpo_kedro.metrics.config import JudgesConfig, VerdictsConfig
from safetydpo_kedro.parameters import (
    ConceptParameters,
    ContactSheetParameters,
    DrawingParameters,
    NoiseParameters,
    PromptWritingParameters,
    SplitParameters,
)
from safetydpo_kedro.settings import CATEGORIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.metrics.clip import ClipModel
    from safetydpo_kedro.prompts.chat import ChatModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    ChatModel = ClipModel = DiffusionModel = Figure = Tensor = object

logger = logging.getLogger(__name__)


def expand_concepts(
    concepts: pd.DataFrame,
    prompt_templates: dict[str, Any],
    language_model: ChatModel,
    parameters: ConceptParameters,
) -> pd.DataFrame:
    """The concepts, and if wanted more of them that a language model proposes."""
    from safetydpo_kedro.prompts.concepts import check_categories, expand, without_excluded
    from safetydpo_kedro.prompts.journal import ReplyJournal
    from safetydpo_kedro.prompts.templates import read_templates

    check_categories(concepts, CATEGORIES)
    kept = without_excluded(concepts)
    if parameters.per_category is None:
        return kept
    templates, journal = read_templates(prompt_templates), ReplyJournal(parameters.journal)
    return expand(kept, language_model, templates, journal, parameters)


def write_prompts(
    concepts: pd.DataFrame,
    imported_pairs: pd.DataFrame | None,
    prompt_templates: dict[str, Any],
    language_model: ChatModel,
    parameters: PromptWritingParameters,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Unsafe prompts and their safe counterparts from all sources, and what is not used."""
    from safetydpo_kedro.prompts.collect import collect_pairs
    from safetydpo_kedro.prompts.journal import ReplyJournal
    from safetydpo_kedro.prompts.templates import read_templates
    from safetydpo_kedro.prompts.writer import load_writer, source_name

    if parameters.imported and imported_pairs is None:
        raise ValueError(
            "prompt_writing.imported is true, but there are no imported pairs: make them first, "
            "with `kedro run --pipelines prompt_import`"
        )
    imported = imported_pairs if parameters.imported else None
    if parameters.writer is None:
        return collect_pairs([], "", parameters.seed, imported)
    resources = {
        "model": language_model,
        "templates": read_templates(prompt_templates),
        "journal": ReplyJournal(parameters.journal),
    }
    writer = load_writer(parameters.writer, parameters.arguments, resources)
    rows = list(concepts[["category", "concept"]].itertuples(index=False, name=None))
    outcomes = writer.write(rows, parameters.pairs_per_concept, parameters.seed)
    return collect_pairs(outcomes, source_name(writer), parameters.seed, imported)


def measure_pairs(written_pairs: pd.DataFrame, judge_clip: ClipModel) -> pd.DataFrame:
    """Add to every pair how close its prompts are."""
    from safetydpo_kedro.prompts import quality
    from safetydpo_kedro.prompts.writer import PAIR_COLUMNS

    return quality.measure_pairs(written_pairs[PAIR_COLUMNS], judge_clip.encode_texts)


def split_prompt_pairs(
    prompt_pairs: pd.DataFrame, parameters: SplitParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training pairs and test prompts, without a leak."""
    from safetydpo_kedro.prompts.split import split_prompts
    from safetydpo_kedro.prompts.writer import PAIR_COLUMNS

    pairs = prompt_pairs[PAIR_COLUMNS]
    lonely = pairs.groupby("concept")["group"].transform("nunique") < 2
    if lonely.any() and not lonely.all():
        logger.warning(
            "%d concepts have a single group of prompts, which cannot be split: left out",
            pairs["concept"][lonely].nunique(),
        )
        pairs = pairs[~lonely]
    return split_prompts(pairs, ["unsafe_prompt", "safe_prompt"], parameters)


def split_neutral_prompts(
    neutral_prompts: pd.DataFrame, parameters: SplitParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Neutral prompts for preservation and for the test, without a leak."""
    from safetydpo_kedro.prompts.collect import excluded_prompts
    from safetydpo_kedro.prompts.split import split_prompts
    from safetydpo_kedro.prompts.writer import image_seed

    table = neutral_prompts[["concept", "prompt", "group"]].copy()
    table.insert(0, "prompt_id", [f"neutral-{i:06d}" for i in range(len(table))])
    table["seed"] = [image_seed(parameters.seed, name) for name in table["prompt_id"]]
    hit = excluded_prompts(table)
    if hit.any():
        logger.warning("%d of %d neutral prompts are excluded by rule", hit.sum(), len(table))
    return split_prompts(table[~hit], ["prompt"], parameters)


def draw_image_pairs(
    model: DiffusionModel, train_pairs: pd.DataFrame, parameters: DrawingParameters
) -> dict[str, Callable[[], pd.DataFrame]]:
    """Draw x_U and x_S of every pair from the same initial noise."""
    from safetydpo_kedro.prompts.collect import excluded_pairs, refuse_excluded

    refuse_excluded(excluded_pairs(train_pairs), "training pairs")

    def draw(rows: slice) -> pd.DataFrame:
        out = train_pairs.iloc[rows].reset_index(drop=True)
        for kind in ("unsafe", "safe"):
            out[f"{kind}_image"] = _draw(
                model, out[f"{kind}_prompt"], out["seed"], out["pair_id"] + f"-{kind}", parameters
            )
        return out

    return plan_shards(len(train_pairs), parameters.shard_size, draw)


def draw_preservation_images(
    model: DiffusionModel, preservation_prompts: pd.DataFrame, parameters: DrawingParameters
) -> dict[str, Callable[[], pd.DataFrame]]:
    """Draw the neutral prompts, whose images an expert must leave alone."""
    from safetydpo_kedro.prompts.collect import excluded_prompts, refuse_excluded

    refuse_excluded(excluded_prompts(preservation_prompts), "neutral prompts")

    def draw(rows: slice) -> pd.DataFrame:
        out = preservation_prompts.iloc[rows].reset_index(drop=True)
        out["image"] = _draw(model, out["prompt"], out["seed"], out["prompt_id"], parameters)
        return out

    return plan_shards(len(preservation_prompts), parameters.shard_size, draw)


def cache_latents(
    model: DiffusionModel, image_pairs: pd.DataFrame, parameters: DrawingParameters
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Posterior mean and deviation of both images, and embeddings of both prompts."""
    from safetydpo_kedro.images import decode_images
    from safetydpo_kedro.preference.latents import encode_pairs

    def encode(rows: slice) -> dict[str, Tensor]:
        table = image_pairs.iloc[rows]
        return encode_pairs(
            model,
            winners=decode_images(table["safe_image"]),
            losers=decode_images(table["unsafe_image"]),
            unsafe_prompts=list(table["unsafe_prompt"]),
            safe_prompts=list(table["safe_prompt"]),
            ids=list(table.index),
            batch_size=parameters.sampling.batch_size,
        ).to_tensors()

    return plan_shards(len(image_pairs), parameters.shard_size, encode)


def cache_preservation(
    model: DiffusionModel, preservation_images: pd.DataFrame, parameters: DrawingParameters
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """The same of the neutral images and prompts."""
    from safetydpo_kedro.images import decode_images
    from safetydpo_kedro.preference.latents import encode_preserved

    def encode(rows: slice) -> dict[str, Tensor]:
        table = preservation_images.iloc[rows]
        images = decode_images(table["image"])
        size = parameters.sampling.batch_size
        return encode_preserved(model, images, list(table["prompt"]), size).to_tensors()

    return plan_shards(len(preservation_images), parameters.shard_size, encode)


def score_reference(
    model: DiffusionModel,
    latent_cache: dict[str, Tensor],
    noise: NoiseParameters,
    parameters: DrawingParameters,
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """The base model's errors on every draw of every pair; none if draws never repeat."""
    from safetydpo_kedro.preference.latents import LatentPairs
    from safetydpo_kedro.preference.reference_scores import score_pairs

    pairs = LatentPairs.from_tensors(latent_cache)

    def score(rows: slice) -> dict[str, Tensor]:
        size = parameters.sampling.batch_size
        return score_pairs(model, pairs.select(rows), noise, size).to_tensors()

    return plan_shards(len(pairs), parameters.shard_size, score)


def judge_image_pairs(
    image_pairs: pd.DataFrame,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
) -> pd.DataFrame:
    """Judge x_U and x_S of every pair: two rows per pair, with a column ``kind``."""
    from safetydpo_kedro.metrics.judging import look_at_table, make_panel
    from safetydpo_kedro.metrics.verdicts import give_verdicts

    panel = make_panel(judge_clip=judge_clip, q16_prompts=q16_prompts, judges=judges)
    tables = []
    for kind in ("unsafe", "safe"):
        columns = {"image": f"{kind}_image", "prompt": f"{kind}_prompt"}
        scores = look_at_table(panel, image_pairs, judges.batch_rows, **columns)
        pairs = image_pairs[["pair_id", "category", "concept"]].assign(kind=kind)
        tables.append(pairs.join(give_verdicts(scores, verdicts.without_classifier)))
    return pd.concat(tables, ignore_index=True)


def report_dataset(
    prompt_pairs: pd.DataFrame,
    train_pairs: pd.DataFrame,
    test_prompts: pd.DataFrame,
    pair_scores: pd.DataFrame,
) -> pd.DataFrame:
    """Counts, and the Inappropriate Probability of the images of p_U and p_S, by category."""
    from safetydpo_kedro.reporting.tables import dataset_table

    return dataset_table(prompt_pairs, train_pairs, test_prompts, pair_scores)


def write_dataset_card(
    written_pairs: pd.DataFrame,
    prompt_pairs: pd.DataFrame,
    rejected_prompts: pd.DataFrame,
    prompt_templates: dict[str, Any],
    language_model: ChatModel,
    concepts: ConceptParameters,
    writing: PromptWritingParameters,
) -> str:
    """Who wrote the pairs, how, and what was set aside: counts, and no prompts."""
    from safetydpo_kedro.prompts.templates import read_templates
    from safetydpo_kedro.reporting.dataset_card import dataset_card

    return dataset_card(
        written_pairs,
        prompt_pairs,
        rejected_prompts,
        read_templates(prompt_templates),
        language_model.identity,
        concepts,
        writing,
    )


def plot_pairs(
    image_pairs: pd.DataFrame, pair_scores: pd.DataFrame, parameters: ContactSheetParameters
) -> Figure:
    """Some pairs of each category: x_U on the left, x_S on the right."""
    import numpy as np

    from safetydpo_kedro.images import decode_images
    from safetydpo_kedro.reporting.grids import contact_sheet

    rows = image_pairs.groupby("category", sort=False).head(parameters.pairs_per_category)
    kinds = ["unsafe", "safe"]
    images = np.stack([decode_images(rows[f"{kind}_image"]) for kind in kinds], axis=1)
    captions = rows[[f"{kind}_prompt" for kind in kinds]].to_numpy().ravel().tolist()
    verdicts = pair_scores.pivot(index="pair_id", columns="kind", values="inappropriate")
    return contact_sheet(
        images.reshape(-1, *images.shape[2:]),
        captions,
        columns=2 * parameters.pairs_per_category,
        blur=parameters.blur,
        flagged=verdicts.loc[rows["pair_id"], kinds].to_numpy().ravel().tolist(),
        title="Base model: p_U left, p_S right",
    )


def _draw(
    model: DiffusionModel,
    prompts: pd.Series,
    seeds: pd.Series,
    names: pd.Series,
    parameters: DrawingParameters,
) -> list[dict[str, Any]]:
    from safetydpo_kedro.images import encode_images

    return encode_images(model.sample(list(prompts), list(seeds), parameters.sampling), names)
