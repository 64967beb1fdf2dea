"""Nodes of ``adversarial`` that search for prompts."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.baselines.config import SldConfig
from safetydpo_kedro.datasets.sharded import KeyedPlan
from safetydpo_kedro.metrics.config import JudgesConfig, VerdictsConfig
from safetydpo_kedro.parameters import DrawingParameters
from safetydpo_kedro.pipelines.adversarial.parameters import AttacksParameters
from safetydpo_kedro.pipelines.adversarial.victims import make_victims

if TYPE_CHECKING:
    from torch import Tensor

    from safetydpo_kedro.attacks import Attack
    from safetydpo_kedro.attacks.registry import AttackConfig
    from safetydpo_kedro.attacks.scene import Goal, Scene
    from safetydpo_kedro.datasets.external_models import ExternalModel
    from safetydpo_kedro.diffusion.lora import LoraAdapter
    from safetydpo_kedro.diffusion.model import DiffusionModel
    from safetydpo_kedro.metrics.classifier import ImageClassifier
    from safetydpo_kedro.metrics.clip import ClipModel
else:  # Kedro resolves the annotations when it starts, which must not load torch
    ClipModel = DiffusionModel = ExternalModel = ImageClassifier = LoraAdapter = Tensor = object

COVERED = ("goals", "parameters", "external_models", "skip")


def search_transferable(
    base_model: DiffusionModel,
    goals: pd.DataFrame,
    train_pairs: pd.DataFrame | None,
    parameters: AttacksParameters,
    drawing: DrawingParameters,
) -> KeyedPlan:
    """Search with the attacks that see no victim: once, for all of them.

    Args:
        base_model: whose text encoders all variants share.
        goals: what attackers want, see :func:`~.goals.draw_goals`.
        train_pairs: unsafe prompts and their counterparts, to learn concepts from; None if there
            are none.
        parameters: attacks and their settings.
        drawing: of images.

    Returns:
        One shard for each attack and goal, of one row, see :func:`search_prompts`; ``variant`` is
        ``any``.
    """
    from safetydpo_kedro.attacks.scene import Scene, Victim
    from safetydpo_kedro.metrics.attack_success import ANY

    scene = Scene(
        base_model,
        Victim(base_model),
        drawing.sampling,
        pairs=_pairs(train_pairs),
        encoding_batch=parameters.encoding_batch,
    )
    return _plan([(ANY, scene, ANY)], goals, parameters, {"nothing"})


def search_prompts(
    base_model: DiffusionModel,
    goals: pd.DataFrame,
    parameters: AttacksParameters,
    drawing: DrawingParameters,
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
    score_clip: ClipModel | None = None,
    extra_judge: ImageClassifier | None = None,
    adapter: LoraAdapter | None = None,
    weights: dict[str, Tensor] | None = None,
    guidance: SldConfig | None = None,
    external_models: list[ExternalModel] | None = None,
    skip: bool = False,
    *,
    variant: str,
) -> KeyedPlan:
    """Search with the attacks that see the victim's images or weights.

    Args:
        base_model: the unprotected model.
        goals: what attackers want.
        parameters: attacks and their settings.
        drawing: how the victim draws for them.
        judge_clip: embeds images for Q16.
        q16_prompts: its prompt embeddings.
        judges: how they look.
        verdicts: what counts as inappropriate, and ends a search.
        score_clip: says how like its prompt an image is; None: ``judge_clip``.
        extra_judge: a third judge.
        adapter: of the variant, as all that follows: see :func:`~.victims.make_victims`.
        weights: the same.
        guidance: the same.
        external_models: the same.
        skip: leave the variant out; there are no shards then.
        variant: name of the victim.

    Returns:
        One shard for each attack and goal, of one row: ``variant, attack, benchmark, prompt_id,
        category, concept, goal`` (what was wanted), ``prompt`` (what was found; empty if it is
        excluded by rule), ``withheld, seed, start, worth`` (of the search's own objective, at its
        start and end), ``evaluations, gradients, images``.
    """
    from safetydpo_kedro.attacks.scene import Scene

    if skip:
        return _plan([], goals, parameters, set())
    harmful, similarity = _looks(judge_clip, q16_prompts, judges, verdicts, score_clip, extra_judge)
    victims = make_victims(base_model, variant, adapter, weights, guidance, external_models)
    scenes = [
        (
            name,
            Scene(
                base_model,
                victim,
                drawing.sampling,
                harmful,
                similarity,
                encoding_batch=parameters.encoding_batch,
                denoising_batch=parameters.denoising_batch,
                aim=parameters.aim,
            ),
            identity,
        )
        for name, (victim, identity) in victims.items()
    ]
    return _plan(scenes, goals, parameters, {"images", "weights"})


def _plan(
    scenes: Iterable[tuple[str, Scene, str]],
    goals: pd.DataFrame,
    parameters: AttacksParameters,
    sees: set[str],
) -> KeyedPlan:
    """A shard for each victim, attack and goal; another goal or attack leaves the rest alone."""
    shards, keys = {}, {}
    known = goals.drop(columns="image").to_dict("records")
    common = [parameters.seed, parameters.aim]
    common += [parameters.encoding_batch, parameters.denoising_batch]
    for variant, scene, identity in scenes:
        for name, (attack, config) in parameters.chosen.items():
            for row in range(len(goals)) if attack.sees in sees else ():
                shard = f"{variant}-{name}-{goals['benchmark'][row]}-{row:05d}"
                shards[shard] = partial(
                    _search, variant, scene, attack, config, parameters.seed, goals.iloc[row]
                )
                keys[shard] = fingerprint([variant, identity, name, config, common, known[row]])
    return KeyedPlan(shards, keys, COVERED, dict.fromkeys(shards, 1))


def _search(
    variant: str, scene: Scene, attack: Attack, config: AttackConfig, seed: int, row: pd.Series
) -> pd.DataFrame:
    from safetydpo_kedro.prompts.exclusion import is_excluded

    found = attack.search(goal_of(row), scene, config, seed)
    texts = [text for text in (found.prompt, row["concept"]) if isinstance(text, str)]
    withheld = is_excluded(*texts, category=row["category"])
    record = {
        "variant": variant,
        "attack": attack.name,
        **row[["benchmark", "prompt_id", "category", "concept"]].to_dict(),
        "goal": row["prompt"],
        "prompt": "" if withheld else found.prompt,
        "withheld": withheld,
        "seed": row["seed"],
        "start": found.start,
        "worth": found.worth,
        "evaluations": found.spent.evaluations,
        "gradients": found.spent.gradients,
        "images": found.spent.images,
    }
    return pd.DataFrame([record])


def goal_of(row: pd.Series) -> Goal:
    """The goal that a row of ``attack_goals`` describes; without a counterpart if it has none."""
    from safetydpo_kedro.attacks.scene import Goal
    from safetydpo_kedro.images import decode_images

    (image,) = decode_images([row["image"]])
    about = row[["prompt_id", "prompt", "seed", "category", "safe_prompt"]]
    # Parquet gives a missing text back as NaN.
    return Goal(**about[about.notna()].to_dict(), image=image)


def _pairs(table: pd.DataFrame | None) -> dict[str, tuple[list[str], list[str]]]:
    """Category → unsafe prompts and their counterparts."""
    if table is None:
        return {}
    return {
        str(category): (rows["unsafe_prompt"].tolist(), rows["safe_prompt"].tolist())
        for category, rows in table.groupby("category", sort=False)
    }


def _looks(
    judge_clip: ClipModel,
    q16_prompts: dict[str, Tensor],
    judges: JudgesConfig,
    verdicts: VerdictsConfig,
    score_clip: ClipModel | None,
    extra_judge: ImageClassifier | None,
) -> tuple[Any, Any]:
    """What tells harmful images, and how like texts images are."""
    from safetydpo_kedro.metrics.clip_score import clip_scores
    from safetydpo_kedro.metrics.inappropriate import VERDICT
    from safetydpo_kedro.metrics.judging import make_panel
    from safetydpo_kedro.metrics.verdicts import give_verdicts

    panel = make_panel(
        judge_clip=judge_clip, q16_prompts=q16_prompts, judges=judges, extra_judge=extra_judge
    )
    clip = score_clip or judge_clip

    def harmful(images):
        scores = panel.look(images, [""] * len(images))
        return give_verdicts(scores, verdicts)[VERDICT].to_numpy()

    def similarity(images, texts):
        return clip_scores(clip.encode_images(images), clip.encode_texts(list(texts))) / 100

    return harmful, similarity
