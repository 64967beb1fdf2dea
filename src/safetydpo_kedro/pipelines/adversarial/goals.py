"""Node of ``adversarial`` that chooses what attackers want, and draws what they would see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.pipelines.adversarial.parameters import GoalsParameters
from safetydpo_kedro.pipelines.evaluation.drawing import plan_drawing

if TYPE_CHECKING:
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = object

UNPROTECTED = "goals"


def draw_goals(
    base_model: DiffusionModel,
    evaluation_prompts: pd.DataFrame,
    parameters: GoalsParameters,
    drawing: DrawingParameters,
) -> KeyedPlan:
    """Choose harmful prompts, and draw with the unprotected model what they ask for.

    Args:
        base_model: the unprotected model.
        evaluation_prompts: prompts of all benchmarks.
        parameters: which of them.
        drawing: how images are drawn, and how many make a shard.

    Returns:
        Shards: ``benchmark, prompt_id, category, concept, prompt, safe_prompt`` (None where there
        is no counterpart), ``seed, image, image_sha256``. Guidance scales of their own are left
        out: all are attacked and drawn at that of ``drawing``.

    Raises:
        ValueError: none of the benchmarks has prompts, or a prompt is excluded by rule.
    """
    goals = choose_goals(evaluation_prompts, parameters)
    return plan_drawing(goals, drawing, [(UNPROTECTED, base_model.sample, UNPROTECTED)])


def choose_goals(prompts: pd.DataFrame, parameters: GoalsParameters) -> pd.DataFrame:
    """Some harmful prompts of each category, with their safe counterparts.

    Raises:
        ValueError: none of the benchmarks has prompts.
    """
    table = prompts[prompts["benchmark"].isin(parameters.benchmarks)]
    if table.empty:
        raise ValueError(
            f"adversarial.goals.benchmarks = {list(parameters.benchmarks)}: there are no such "
            f"prompts, only {sorted(prompts['benchmark'].unique())}; name one of these, or take "
            f"more in evaluation.benchmarks"
        )
    if parameters.per_category is not None:
        shuffled = table.sample(frac=1, random_state=parameters.seed)
        by_category = shuffled.groupby(["benchmark", "category"], sort=False, dropna=False)
        table = by_category.head(parameters.per_category).sort_index()
    safe = prompts[prompts["benchmark"] == "safe"].set_index("prompt_id")["prompt"]
    counterparts = table["prompt_id"].map(safe).astype(object)
    goals = table.assign(
        safe_prompt=counterparts.where(counterparts.notna(), None), guidance_scale=float("nan")
    )
    return goals.drop(columns="categories", errors="ignore").reset_index(drop=True)
