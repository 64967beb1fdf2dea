"""Nodes of ``ablations`` that merge, draw, judge and report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.metrics.config import CheckerConfig, JudgesConfig, VerdictsConfig
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.pipelines.ablations.looking import make_look
from safetydpo_kedro.pipelines.ablations.parameters import ArmsParameters, QuestionsParameters
from safetydpo_kedro.pipelines.merging.parameters import FittingParameters, ProfileParameters

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.merging.trials import Trial
    from safetydpo_kedro.metrics.clip import ClipModel
    from safetydpo_kedro.pipelines.ablations.looking import Look
else:  # Kedro resolves the annotations when it starts, which must not load torch
    ClipModel = DiffusionModel = Figure = LoraAdapter = Tensor = object


def choose_questions(
    evaluation_prompts: pd.DataFrame, parameters: QuestionsParameters
) -> pd.DataFrame:
    """Some of the prompts of the evaluation, of all concepts of a category alike.

    Returns:
        Rows of the prompt table, in its order.
    """
    table = evaluation_prompts
    turn = table.groupby(["benchmark", "concept"], sort=False).cumcount()
    order = table.assign(turn=turn).sort_values("turn", kind="stable")
    neutral = order["benchmark"] == "neutral"
    pairs = order[~neutral].groupby(["benchmark", "category"]).head(parameters.per_category)
    plain = order[neutral & (order["turn"] < parameters.per_neutral_concept)]
    return table.loc[sorted([*pairs.index, *plain.index])].reset_index(drop=True)


def judge_merges(
    base_model: DiffusionModel,
    latent_cache: dict[str, Tensor],
    train_pairs: pd.DataFrame,
    preservation_cache: dict[str, Tensor],
    questions: pd.DataFrame,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
    checker: CheckerConfig | None,
    drawing: DrawingParameters,
    profile: ProfileParameters,
    fitting: FittingParameters,
    seed: int,
    categories: list[str],
    sweeps: list[str],
    strategies: ArmsParameters,
    variants: ArmsParameters,
    kinds: ArmsParameters,
    counts: ArmsParameters,
    **experts: LoraAdapter,
) -> dict[str, Callable[[], pd.DataFrame]]:
    """Make every merge of some sweeps, and let it draw the questions.

    Args:
        base_model: the model that the experts were trained on.
        latent_cache: posteriors and embeddings of all pairs.
        train_pairs: one row per pair, in the order of the cache.
        preservation_cache: posteriors and embeddings of neutral images.
        questions: prompts that every merge draws.
        judge_clip: embeds images.
        q16_prompts: prompt embeddings of Q16.
        judges: of the images.
        verdicts: what counts as inappropriate.
        checker: finds concepts.
        drawing: how images are drawn.
        profile: inputs of the activation profile.
        fitting: inputs of the fit, and how to fit.
        seed: of profile and fit.
        categories: all of them, in the order in which experts are added.
        sweeps: which of ``strategies, variants, kinds, counts, transfer`` to make.
        strategies: arms of the sweep of this name, as the three that follow.
        variants: the same.
        kinds: the same.
        counts: the same.
        experts: category → expert.

    Returns:
        Shards, one for each merge: one row per image, with scores.
    """
    from safetydpo_kedro.merging.trials import (
        Workbench,
        count_trials,
        strength_trials,
        transfer_trials,
    )
    from safetydpo_kedro.preference.latents import CachedPrompts

    bench = Workbench(
        base_model,
        experts,
        CachedPrompts.from_tensors(latent_cache, train_pairs, preservation_cache),
        profile.calibration,
        fitting.config,
        fitting.inputs,
        seed,
    )
    by_sweep = {
        "strategies": strength_trials("strategies", strategies.arms, categories),
        "variants": strength_trials("variants", variants.arms, categories),
        "kinds": strength_trials("kinds", kinds.arms, categories),
        "counts": count_trials(counts.arms, categories),
        "transfer": transfer_trials(categories),
    }
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
    trials = [trial for sweep in sweeps for trial in by_sweep[sweep]]
    return {trial.name: partial(_judge_trial, look, trial, bench.adapter) for trial in trials}


def judge_joint_experts(
    base_model: DiffusionModel,
    questions: pd.DataFrame,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
    checker: CheckerConfig | None,
    drawing: DrawingParameters,
    categories: list[str],
    **experts: LoraAdapter,
) -> dict[str, Callable[[], pd.DataFrame]]:
    """Let the base model, and every expert that was trained on all categories, draw the questions.

    Args:
        base_model: the model that the experts were trained on.
        questions: prompts that each draws.
        judge_clip: embeds images.
        q16_prompts: prompt embeddings of Q16.
        judges: of the images.
        verdicts: what counts as inappropriate.
        checker: finds concepts.
        drawing: how images are drawn.
        categories: all of them.
        experts: kind → expert for all categories.

    Returns:
        Shards, one for each: one row per image, with scores.
    """
    from safetydpo_kedro.merging.trials import Trial

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
    adapters: dict[str, LoraAdapter | None] = {"base": None, **experts}
    trials = [Trial("joint", name, 1.0, tuple(categories), None) for name in adapters]
    return {
        trial.name: partial(_judge_trial, look, trial, lambda trial: adapters[trial.arm])
        for trial in trials
    }


def _judge_trial(
    look: Look,
    trial: Trial,
    adapter: Callable[[Trial], LoraAdapter | None],
) -> pd.DataFrame:
    from safetydpo_kedro.merging.trials import trial_rows

    return trial_rows(look(adapter(trial)), trial)


def collect_trials(**scores: pd.DataFrame) -> pd.DataFrame:
    """Judged images of all trials, with kind of experts and seed in front.

    Args:
        scores: ``kind__seed`` → judged images.
    """
    tables = []
    for name, table in scores.items():
        kind, _, seed = name.partition("__")
        tables.append(table.assign(experts=kind, seed_name=seed))
    return pd.concat(tables, ignore_index=True)


def report_trials(
    trial_scores: pd.DataFrame, categories: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, Figure, Figure, Figure, Figure, Figure]:
    """All comparisons as one table, the transfer matrix, and a figure for each comparison.

    Returns:
        The table of all trials over seeds; the transfer matrix; figures of strategies, of
        variants of Co-Merge, of kinds of experts, of the matrix, and of the number of experts.
    """
    from safetydpo_kedro.reporting.trade_offs import (
        counts_figure,
        over_seeds,
        summarise_trials,
        trade_off_figure,
        transfer_figure,
        transfer_matrix,
    )

    table = over_seeds(summarise_trials(trial_scores))
    matrix = transfer_matrix(trial_scores, categories)

    def figure(title: str, sweeps: Iterable[str]) -> Figure:
        return trade_off_figure(table[table["sweep"].isin(sweeps)], title)

    return (
        table,
        matrix.rename_axis("expert").reset_index(),
        figure("Merging strategies over strength", ["strategies", "joint"]),
        figure("Variants of Co-Merge over strength", ["variants"]),
        figure("Kinds of experts over strength", ["kinds"]),
        transfer_figure(matrix),
        counts_figure(table[table["sweep"] == "counts"]),
    )
