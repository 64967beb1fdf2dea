"""What the training of one expert is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from safetydpo_kedro.parameters import ExpertTrainingParameters
from safetydpo_kedro.preference.latents import LatentPairs, PreservedImages
from safetydpo_kedro.preference.reference_scores import ReferenceScores


@dataclass(frozen=True)
class HeldOut:
    """Pairs that are looked at during training and never trained on.

    Attributes:
        pairs: V latent pairs.
        prompts: p_U of some of them, which are drawn.
        seeds: of these images.
    """

    pairs: LatentPairs
    prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()


@dataclass(frozen=True)
class TrainingData:
    """What the training of one expert is given.

    Attributes:
        pairs: latent pairs of the expert's categories.
        preserved: pools of preserved images by name: ``neutral``, ``safe``, ``other_unsafe``; may
            be empty if nothing is to be preserved.
        scores: the reference's errors on the pairs, in their order; None: computed in every step.
        held_out: for validation; None: there is none.
    """

    pairs: LatentPairs
    preserved: Mapping[str, PreservedImages] = field(default_factory=dict)
    scores: ReferenceScores | None = None
    held_out: HeldOut | None = None


def expert_data(
    table: pd.DataFrame,
    categories: Sequence[str],
    pairs: LatentPairs,
    neutral: PreservedImages,
    scores: ReferenceScores,
    parameters: ExpertTrainingParameters,
) -> TrainingData:
    """What one expert is trained on, out of what there is for all.

    Its own pairs are those of its categories. It preserves neutral images, safe images of all
    categories, and the unsafe ones of the categories that are not its own. Held-out pairs are in
    none of these.

    Args:
        table: one row per pair, in the order of ``pairs``: category, concept, unsafe_prompt, seed.
        categories: those that the expert is to forget.
        pairs: of all categories.
        neutral: images of neutral prompts.
        scores: the reference's errors on ``pairs``; of no draws if they are not known.
        parameters: what is preserved, and what is held out.

    Raises:
        ValueError: holding pairs out leaves none to train on.
    """
    own = torch.from_numpy(table["category"].isin(categories).to_numpy(copy=True))
    kept = torch.ones(len(table), dtype=torch.bool)
    held_out, preserved = None, {}
    validation = parameters.validation
    if validation.every is not None and own.any():
        concepts = table[own.numpy()]["concept"]
        rows = held_out_rows(concepts, validation.pairs, parameters.seed)
        if len(rows) == own.sum():
            raise ValueError(
                f"expert_training.validation.pairs = {validation.pairs} leaves no pair of "
                f"{', '.join(categories)} to train on, there are {len(rows)}: lower it, make more "
                f"pairs, or set validation.every to null"
            )
        kept[rows] = False
        drawn = table.loc[rows.tolist()].head(validation.images)
        held_out = HeldOut(
            pairs.select(rows), drawn["unsafe_prompt"].tolist(), drawn["seed"].tolist()
        )
    if parameters.preservation.weight:
        preserved = {"neutral": neutral, "safe": pairs.safe_side(kept)}
        if not own.all():
            preserved["other_unsafe"] = pairs.unsafe_side(~own)
    own &= kept
    return TrainingData(pairs.select(own), preserved, scores.select(own), held_out)


def held_out_rows(concepts: pd.Series, count: int, seed: int) -> Tensor:
    """Rows to hold out, from all concepts alike.

    Args:
        concepts: concept of each row, under the rows' positions as its index.
        count: how many; all of them if there are not so many.
        seed: of the choice.

    Returns:
        int64, at most ``count`` positions.

    Example:
        >>> concepts = pd.Series(["gun", "gun", "gun", "knife"], index=[3, 4, 5, 6])
        >>> sorted(concepts[held_out_rows(concepts, 2, seed=0).tolist()])
        ['gun', 'knife']
    """
    shuffled = concepts.sample(frac=1, random_state=seed)
    turn = shuffled.groupby(shuffled).cumcount()
    chosen = turn.sort_values(kind="stable").head(count)
    return torch.tensor(chosen.index.to_numpy(copy=True), dtype=torch.int64)
