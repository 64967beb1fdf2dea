"""Nodes of ``ablations`` that vary the recipe: how experts are trained, and on how much."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.metrics.config import CheckerConfig, JudgesConfig, VerdictsConfig
from safetydpo_kedro.parameters import (
    DrawingParameters,
    ExpertTrainingParameters,
    NoiseParameters,
)
from safetydpo_kedro.pipelines.ablations.looking import make_look
from safetydpo_kedro.pipelines.ablations.nodes import choose_questions
from safetydpo_kedro.pipelines.ablations.parameters import (
    QuestionsParameters,
    RecipeQuestionsParameters,
    SweepsParameters,
)
from safetydpo_kedro.pipelines.ablations.recipe_arms import BASE, DefaultRecipe, Recipe
from safetydpo_kedro.pipelines.ablations.training import own_checkpoints, seeded
from safetydpo_kedro.pipelines.expert_training.nodes import train_safety_expert
from safetydpo_kedro.settings import ABLATION_SWEEPS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.metrics.clip import ClipModel
    from safetydpo_kedro.pipelines.ablations.looking import Look
else:  # Kedro resolves the annotations when it starts, which must not load torch
    ClipModel = DiffusionModel = Figure = LoraAdapter = Tensor = object

# Arguments of `judge_recipes` that say what the recipes are: a shard depends on its own alone.
COVERED = ("parameters", "changes", "noise", "sweeps")
LAST_SHARE = 0.2  # of the steps, over which implicit accuracy is averaged


def choose_recipe_questions(
    evaluation_prompts: pd.DataFrame, categories: list[str], parameters: RecipeQuestionsParameters
) -> pd.DataFrame:
    """Prompts that the expert of every recipe draws: many of trained categories, few of others.

    Returns:
        Rows of the prompt table.
    """
    own = evaluation_prompts["category"].isin(categories)
    neutral = evaluation_prompts["benchmark"] == "neutral"
    parts = [
        (own | neutral, parameters.per_category, parameters.per_neutral_concept),
        (~own & ~neutral, parameters.per_other_category, 0),
    ]
    return pd.concat(
        [
            choose_questions(
                evaluation_prompts[rows],
                QuestionsParameters(per_category=count, per_neutral_concept=neutral_count),
            )
            for rows, count, neutral_count in parts
        ],
        ignore_index=True,
    )


def judge_recipes(
    base_model: DiffusionModel,
    train_pairs: pd.DataFrame,
    latent_cache: dict[str, Tensor],
    preservation_cache: dict[str, Tensor],
    reference_scores: dict[str, Tensor],
    questions: pd.DataFrame,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
    checker: CheckerConfig | None,
    drawing: DrawingParameters,
    categories: list[str],
    parameters: ExpertTrainingParameters,
    changes: dict[str, Any],
    noise: NoiseParameters,
    sweeps: SweepsParameters,
    seed: int,
) -> KeyedPlan:
    """Train an expert with every recipe that the sweeps ask for, and let it draw the questions.

    Args:
        base_model: the model that is to be aligned.
        train_pairs: one row per pair, in the order of the cache.
        latent_cache: posteriors and embeddings of all pairs.
        preservation_cache: the same of neutral images.
        reference_scores: the base model's errors on all pairs.
        questions: prompts that each expert draws.
        judge_clip: embeds images.
        q16_prompts: prompt embeddings of Q16.
        judges: of the images.
        verdicts: what counts as inappropriate.
        checker: finds concepts.
        drawing: how images are drawn.
        categories: whose pairs each expert is trained on.
        parameters: of the training.
        changes: what differs from them in all recipes.
        noise: draws and caption dropout.
        sweeps: what differs in each arm.
        seed: of adapter, order and noise.

    Returns:
        A shard for each recipe and one for the base model, see :func:`recipe_rows`.
    """
    default = DefaultRecipe.of(train_pairs, categories, parameters, changes, noise)
    look = make_look(
        base_model=base_model,
        questions=questions,
        judge_clip=judge_clip,
        q16_prompts=q16_prompts,
        judges=judges,
        verdicts=verdicts,
        checker=checker,
        drawing=drawing,
    )
    tensors = (latent_cache, preservation_cache, reference_scores)
    train = partial(_train, base_model, tensors, default, parameters, seed)
    recipes = default.recipes(sweeps)
    shards: dict[str, Callable[[], pd.DataFrame]] = {
        BASE: lambda: recipe_rows(look(None), BASE, default, (), float("nan"))
    }
    for name, recipe in recipes.items():
        shards[name] = partial(_judge_recipe, look, train, default, recipe)
    keys = {name: fingerprint(recipes.get(name, BASE)) for name in shards}
    return KeyedPlan(shards, keys, COVERED, dict.fromkeys(shards, len(questions)))


def _judge_recipe(
    look: Look,
    train: Callable[[Recipe, Callable[[LoraAdapter, float], pd.DataFrame]], pd.DataFrame],
    default: DefaultRecipe,
    recipe: Recipe,
) -> pd.DataFrame:
    def judge(expert: LoraAdapter, accuracy: float) -> pd.DataFrame:
        return recipe_rows(look(expert), recipe.name, default, recipe.pairs, accuracy)

    return train(recipe, judge)


def _train(
    model: DiffusionModel,
    tensors: tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]],
    default: DefaultRecipe,
    parameters: ExpertTrainingParameters,
    seed: int,
    recipe: Recipe,
    judge: Callable[[LoraAdapter, float], pd.DataFrame],
) -> pd.DataFrame:
    """Train a recipe's expert and judge it; only then its checkpoints go."""
    from safetydpo_kedro.preference.reference_scores import ReferenceScores

    latents, neutral, scores = tensors
    table = default.table
    others = table.index[~table["category"].isin(default.categories)]
    rows = sorted([*recipe.pairs, *others])
    if recipe.noise != default.noise:  # the scores are of other draws
        scores = ReferenceScores.from_tensors(scores).without_draws().to_tensors()
    varied = recipe.training.model_copy(update={"seed": seed})
    with own_checkpoints(varied, parameters, f"recipe-{recipe.name}-{seed}") as training:
        for expert, history, _ in train_safety_expert(
            model,
            table.loc[rows].reset_index(drop=True),
            {name: tensor[rows] for name, tensor in latents.items()},
            neutral,
            {name: tensor[rows] for name, tensor in scores.items()},
            None,
            list(default.categories),
            seeded(recipe.noise, seed),
            training,
        ):
            judged = judge(expert, last_accuracy(history))
    return judged


def last_accuracy(history: pd.DataFrame) -> float:
    """Mean implicit accuracy of the last fifth of the steps, at least one."""
    return float(history["implicit_accuracy"].tail(max(1, int(LAST_SHARE * len(history)))).mean())


def recipe_rows(
    judged: pd.DataFrame,
    name: str,
    default: DefaultRecipe,
    pairs: tuple[int, ...],
    accuracy: float,
) -> pd.DataFrame:
    """Judged images with the recipe's columns in front: ``recipe, own, trained, …``.

    ``own`` says whether the prompt is of a trained category, ``trained`` whether pairs of its
    concept were among those trained on.

    Args:
        judged: one row per image: ``category, concept`` and the verdicts.
        name: of the recipe.
        default: whose table ``pairs`` are positions in.
        pairs: that the expert was trained on.
        accuracy: implicit accuracy at the end of the training, NaN without one.
    """
    seen = pd.MultiIndex.from_frame(default.table.loc[list(pairs), ["category", "concept"]])
    asked = pd.MultiIndex.from_frame(judged[["category", "concept"]])
    return pd.DataFrame(
        {
            "recipe": name,
            "own": judged["category"].isin(default.categories),
            "trained": asked.isin(seen),
            "implicit_accuracy": accuracy,
        }
    ).join(judged.drop(columns="image", errors="ignore"))


def report_recipes(
    train_pairs: pd.DataFrame,
    categories: list[str],
    parameters: ExpertTrainingParameters,
    changes: dict[str, Any],
    noise: NoiseParameters,
    sweeps: SweepsParameters,
    log_axes: list[str],
    **scores: pd.DataFrame,
) -> tuple[pd.DataFrame | Figure, ...]:
    """All arms as one table, and a figure for each sweep.

    Args:
        train_pairs: as in :func:`judge_recipes`, with the six that follow.
        categories: whose pairs each expert is trained on.
        parameters: of the training.
        changes: what differs from them in all recipes.
        noise: draws and caption dropout.
        sweeps: what differs in each arm.
        log_axes: sweeps whose figure has a logarithmic axis.
        scores: seed → judged images of all recipes.

    Returns:
        The table; figures in the order of ``ABLATION_SWEEPS``.
    """
    from safetydpo_kedro.reporting.recipe_ablations import recipe_figure, recipe_table

    default = DefaultRecipe.of(train_pairs, categories, parameters, changes, noise)
    every = pd.concat(
        [table.assign(seed_name=seed) for seed, table in scores.items()], ignore_index=True
    )
    table = recipe_table(default.arms(sweeps), every)
    figures = {sweep: recipe_figure(table, sweep, sweep in log_axes) for sweep in ABLATION_SWEEPS}
    return table, *figures.values()
