"""What the arms of the recipe sweeps come down to; arms that come to the same are one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safetydpo_kedro.artifacts import fingerprint
from safetydpo_kedro.parameters import ExpertTrainingParameters, NoiseParameters
from safetydpo_kedro.pipelines.ablations.parameters import DataChanges, RecipeArm, SweepsParameters
from safetydpo_kedro.pipelines.ablations.training import changed

BASE = "base"


@dataclass(frozen=True)
class Recipe:
    """All that decides what an expert becomes, but for the seed.

    Attributes:
        training: parameters of the training.
        noise: draws and caption dropout.
        pairs: positions of the expert's own pairs in the table of training pairs.
    """

    training: ExpertTrainingParameters
    noise: NoiseParameters
    pairs: tuple[int, ...]

    @property
    def name(self) -> str:
        """12 hex digits, the same for all arms that come to this recipe."""
        return fingerprint([self.training, self.noise, self.pairs])[:12]


@dataclass(frozen=True)
class DefaultRecipe:
    """What arms change.

    Attributes:
        table: training pairs: ``category, concept``.
        categories: whose pairs an expert is trained on.
        training: parameters of the training.
        noise: draws and caption dropout.
    """

    table: pd.DataFrame
    categories: tuple[str, ...]
    training: ExpertTrainingParameters
    noise: NoiseParameters

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        categories: Sequence[str],
        parameters: ExpertTrainingParameters,
        changes: dict[str, Any],
        noise: NoiseParameters,
    ) -> DefaultRecipe:
        """The recipe of ``expert_training``, with what all arms of the ablation change.

        Nothing is held out, because nobody looks.

        Raises:
            ValueError: a category without pairs, or a change that cannot be.
        """
        known = sorted(table["category"].unique())
        if not categories or set(categories) - set(known):
            raise ValueError(
                f"ablations.recipes.categories = {list(categories)}: name one or more of those "
                f"that have training pairs, {', '.join(known)}"
            )
        common = {**changes, "validation": {"every": None}}
        training = changed(parameters, common, "ablations.recipes.training")
        return cls(table.reset_index(drop=True), tuple(categories), training, noise)

    def recipe(self, sweep: str, name: str, arm: RecipeArm) -> Recipe:
        """What an arm comes to.

        Raises:
            ValueError: a change that cannot be, with the arm's place in the parameters.
        """
        place = f"ablations.recipes.sweeps.{sweep}.{name}"
        return Recipe(
            changed(self.training, arm.training, f"{place}.training"),
            changed(self.noise, arm.noise, f"{place}.noise"),
            chosen_pairs(self.table, self.categories, arm.data),
        )

    def recipes(self, sweeps: SweepsParameters) -> dict[str, Recipe]:
        """Name → recipe, each once, in the order in which arms first ask for them."""
        every = [self.recipe(*arm) for arm in sweeps.arms]
        return {recipe.name: recipe for recipe in every}

    def arms(self, sweeps: SweepsParameters) -> pd.DataFrame:
        """Every arm with the recipe it comes to, and the model without an expert in front.

        Returns:
            One row per arm: ``sweep, arm, curve, value, recipe``.
        """
        rows = [(BASE, BASE, BASE, BASE, BASE)]
        for sweep, name, arm in sweeps.arms:
            recipe = self.recipe(sweep, name, arm)
            rows.append((sweep, name, arm.curve, arm.place(name), recipe.name))
        return pd.DataFrame(rows, columns=["sweep", "arm", "curve", "value", "recipe"])


def chosen_pairs(
    table: pd.DataFrame, categories: Sequence[str], data: DataChanges
) -> tuple[int, ...]:
    """Positions of the pairs that a recipe trains on.

    Args:
        table: training pairs: ``category, concept``, numbered from 0.
        categories: whose pairs are taken.
        data: how many concepts of each, and how many pairs of a concept; the first ones.

    Example:
        >>> table = pd.DataFrame({"category": list("aaaab"), "concept": list("xyxyz")})
        >>> chosen_pairs(table, ["a"], DataChanges(concepts=1))
        (0, 2)
        >>> chosen_pairs(table, ["a"], DataChanges(pairs_per_concept=1))
        (0, 1)
    """
    own = table[table["category"].isin(categories)]
    if data.concepts is not None:
        first = own.drop_duplicates(["category", "concept"])
        first = first[first.groupby("category").cumcount() < data.concepts]
        keys = pd.MultiIndex.from_frame(first[["category", "concept"]])
        own = own[pd.MultiIndex.from_frame(own[["category", "concept"]]).isin(keys)]
    if data.pairs_per_concept is not None:
        own = own.groupby(["category", "concept"]).head(data.pairs_per_concept)
    return tuple(own.index.tolist())
