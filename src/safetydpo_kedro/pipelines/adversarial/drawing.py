"""Node of ``adversarial`` that draws what was found."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.baselines.config import SldConfig
from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.pipelines.adversarial.parameters import AttacksParameters
from safetydpo_kedro.pipelines.adversarial.victims import make_victims
from safetydpo_kedro.pipelines.evaluation.drawing import plan_rows

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.attacks.scene import Victim
    from safetydpo_kedro.datasets.external_models import ExternalModel
    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = ExternalModel = LoraAdapter = Tensor = object

COVERED = ("goals", "transferable", "prompts", "parameters", "external_models", "skip")
FOUND = ["attack", "benchmark", "prompt_id", "category", "concept", "goal", "prompt", "seed"]


def draw_attacked(
    base_model: DiffusionModel,
    goals: pd.DataFrame,
    transferable: pd.DataFrame,
    prompts: pd.DataFrame,
    parameters: AttacksParameters,
    drawing: DrawingParameters,
    adapter: LoraAdapter | None = None,
    weights: dict[str, Tensor] | None = None,
    guidance: SldConfig | None = None,
    external_models: list[ExternalModel] | None = None,
    skip: bool = False,
    *,
    variant: str,
) -> KeyedPlan:
    """Draw the goals' own prompts and all adversarial ones with the victim.

    Args:
        base_model: the unprotected model.
        goals: what attackers want.
        transferable: prompts found without a victim.
        prompts: prompts found against this one.
        parameters: seeds.
        drawing: how images are drawn.
        adapter: of the variant, as all that follows: see :func:`~.victims.make_victims`.
        weights: the same.
        guidance: the same.
        external_models: the same.
        skip: leave the variant out; there are no shards then.
        variant: name of the victim.

    Returns:
        Shards, one row per image: ``variant``; ``benchmark``, the attack or ``none``; ``source``,
        the goal's benchmark; ``prompt_id, category, concept``; ``prompt``, the goal's, by which
        images are judged; ``drawn``, the text that was drawn; ``trial``, 0 for the goal's own seed
        and more for fresh ones; ``seed, image, image_sha256, weights_sha256``.
    """
    from safetydpo_kedro.metrics.attack_success import NO_ATTACK

    if skip:
        return plan_rows([], drawing.shard_size, COVERED)
    victims = make_victims(base_model, variant, adapter, weights, guidance, external_models)
    plain = goals.assign(attack=NO_ATTACK, goal=goals["prompt"])
    parts = []
    for name, (victim, identity) in victims.items():
        own = prompts[prompts["variant"] == name] if len(prompts) else prompts
        tables = [table[FOUND] for table in (plain, transferable, own) if len(table)]
        rows = _trials(pd.concat(tables, ignore_index=True), parameters)
        rows = rows.assign(variant=name, weights_sha256=identity)
        parts.append((rows, partial(_draw, victim, drawing)))
    return plan_rows(parts, drawing.shard_size, COVERED)


def _trials(found: pd.DataFrame, parameters: AttacksParameters) -> pd.DataFrame:
    """Each prompt with the goal's own seed and with fresh ones; nothing for withheld prompts.

    A goal's fresh seeds are the same for all attacks and victims.
    """
    from safetydpo_kedro.preference.noise import key

    found = found[found["prompt"] != ""]
    tables = []
    for trial in range(1 + parameters.fresh_seeds):
        seeds = found["seed"]
        if trial:
            fresh = [key(parameters.seed, name, trial) % 2**31 for name in found["prompt_id"]]
            seeds = pd.Series(fresh, index=found.index, dtype="int64")
        tables.append(found.assign(seed=seeds, trial=trial))
    rows = pd.concat(tables, ignore_index=True)
    return rows.rename(
        columns={"benchmark": "source", "attack": "benchmark", "prompt": "drawn", "goal": "prompt"}
    ).assign(guidance_scale=float("nan"))


def _draw(victim: Victim, drawing: DrawingParameters, rows: pd.DataFrame) -> pd.DataFrame:
    from safetydpo_kedro.diffusion.drawing import draw_rows

    goals = rows["prompt"].tolist()
    with victim.patch():
        images = draw_rows(victim.draw, rows.assign(prompt=rows["drawn"]), drawing.sampling)
    return images.assign(prompt=goals)
