"""Nodes of ``hardening``: attack the expert on its training pairs, and add what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.metrics.config import BootstrapConfig, VerdictsConfig
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.pipelines.adversarial.goals import draw_goals
from safetydpo_kedro.pipelines.adversarial.parameters import AttacksParameters, GoalsParameters
from safetydpo_kedro.pipelines.evaluation.judging import collect_scores
from safetydpo_kedro.pipelines.evaluation.nodes import collect_benchmarks
from safetydpo_kedro.pipelines.evaluation.parameters import BenchmarksParameters

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from safetydpo_kedro.diffusion.model import DiffusionModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    DiffusionModel = Figure = Tensor = object

BENCHMARKS = BenchmarksParameters(take={"unsafe": "all", "safe": "all"})
Shards = dict[str, dict[str, Tensor]]


def draw_training_goals(
    base_model: DiffusionModel,
    train_pairs: pd.DataFrame,
    parameters: GoalsParameters,
    drawing: DrawingParameters,
) -> KeyedPlan:
    """Goals out of the training pairs, so that no prompt of the evaluation is trained on.

    See :func:`~safetydpo_kedro.pipelines.adversarial.goals.draw_goals`.
    """
    prompts = collect_benchmarks(BENCHMARKS, train_pairs)
    return draw_goals(base_model, prompts, parameters, drawing)


def add_adversarial_pairs(
    base_model: DiffusionModel,
    train_pairs: pd.DataFrame,
    latent_cache: dict[str, Tensor],
    transferable: pd.DataFrame,
    prompts: pd.DataFrame,
    drawing: DrawingParameters,
) -> tuple[pd.DataFrame, Shards, Shards]:
    """Put pairs under adversarial prompts behind the training pairs.

    An adversarial prompt was found for the unsafe prompt of a pair, and asks for the same. So it
    gets that pair's images: the harmless one wins, the harmful one loses.

    Args:
        base_model: whose text encoders read the prompts.
        train_pairs: one row per pair, in the order of the cache.
        latent_cache: posteriors and embeddings of all pairs.
        transferable: prompts found without a victim.
        prompts: prompts found against the expert.
        drawing: says how many prompts are encoded at once.

    Returns:
        All pairs, with ``attack`` (``none`` for the old ones); their cache; and reference scores of
        no draws, so that the reference is asked in every step.

    Raises:
        ValueError: nothing was found.
    """
    import torch

    from safetydpo_kedro.preference.latents import LatentPairs, encode_prompts
    from safetydpo_kedro.preference.reference_scores import ReferenceScores

    found = pd.concat([t for t in (transferable, prompts) if len(t)] or [pd.DataFrame()])
    found = found[found["prompt"] != ""].reset_index(drop=True) if len(found) else found
    if found.empty:
        raise ValueError("hardening: the attacks have found no prompts to train on")
    places = pd.Series(range(len(train_pairs)), index=train_pairs["pair_id"])
    rows = torch.from_numpy(places[found["prompt_id"]].to_numpy(copy=True))
    pairs = LatentPairs.from_tensors(latent_cache)
    ids = torch.arange(len(found)) + int(pairs.ids.max()) + 1
    captions = encode_prompts(base_model, found["prompt"].tolist(), drawing.sampling.batch_size)
    joined = LatentPairs.join(pairs, pairs.recaptioned(rows, captions, ids))
    extra = train_pairs.iloc[rows.tolist()].assign(
        pair_id=found["attack"].to_numpy() + "-" + found["prompt_id"].to_numpy(),
        unsafe_prompt=found["prompt"].to_numpy(),
        attack=found["attack"].to_numpy(),
    )
    table = pd.concat([train_pairs.assign(attack="none"), extra], ignore_index=True)
    unknown = ReferenceScores(torch.empty(len(table), 0, 2, 2))
    name = "shard-00000"
    return table, {name: joined.to_tensors()}, {name: unknown.to_tensors()}


def compare_hardened(
    verdicts: VerdictsConfig,
    bootstrap: BootstrapConfig,
    parameters: AttacksParameters,
    transferable: pd.DataFrame,
    **tables: pd.DataFrame,
) -> tuple[pd.DataFrame, str, Figure]:
    """What one round of adversarial training has changed, for better and worse.

    Args:
        verdicts: what counts as inappropriate.
        bootstrap: of the intervals.
        parameters: of the attacks.
        transferable: prompts found without a victim.
        tables: ``<variant>__judgements`` of the evaluation, ``<variant>__attacked`` (judgements
            under attack) and ``<variant>__prompts`` (found against it).

    Returns:
        One row per variant, the same as Markdown, and a chart of attack success.
    """
    from safetydpo_kedro.reporting.attack_report import attack_figure, attack_table
    from safetydpo_kedro.reporting.hardening_report import hardening_table
    from safetydpo_kedro.reporting.tables import to_markdown

    def of(kind: str) -> dict[str, pd.DataFrame]:
        ending = f"__{kind}"
        return {n.removesuffix(ending): t for n, t in tables.items() if n.endswith(ending)}

    scores = collect_scores(verdicts, **of("judgements"))
    attacked = collect_scores(verdicts, **of("attacked"))
    found = pd.concat([t for t in (transferable, *of("prompts").values()) if len(t)])
    attacks = attack_table(attacked, found, bootstrap, parameters.aim)
    table = hardening_table(scores, attacks)
    return table, to_markdown(table), attack_figure(attacks)
