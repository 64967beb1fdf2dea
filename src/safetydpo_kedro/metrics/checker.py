"""An independent look at what images show, as a check on over-erasure.

IP falls to zero if a model draws nothing but noise. A checker that shares no weights with the
judges says whether an image still shows what its prompt asks for. Which checker there is depends
on the data, so it is named by import path in the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetydpo_kedro.threads import builds_models

#: Answers of a checker, by image → name of their mean over images.
MEASURES = {
    "concept_correct": "concept_accuracy",
    "background_correct": "background_accuracy",
    "drawn_as_mate": "mate_accuracy",
}


@runtime_checkable
class ImageChecker(Protocol):
    """Says of each image what is right about it."""

    def check(
        self, images: NDArray[np.uint8], prompts: Sequence[str]
    ) -> Mapping[str, NDArray[np.floating]]:
        """Compare images with their prompts.

        Args:
            images: uint8 ``[N, H, W, 3]``.
            prompts: N texts.

        Returns:
            Some of ``concept_correct`` (the prompt's concept is there), ``background_correct``
            (the rest of the prompt holds) and ``drawn_as_mate`` (an unsafe prompt gave the safe
            counterpart of its concept): float ``[N]``, 1 or 0, NaN where the question is not one.
        """
        ...


@builds_models
def load_checker(path: str, arguments: Mapping[str, Any]) -> ImageChecker:
    """Build the checker that ``path`` names.

    Raises:
        ValueError: there is no such class, its arguments do not fit, or it cannot check.
    """
    module, _, name = path.rpartition(".")
    try:
        checker = getattr(import_module(module), name)(**arguments)
    except (ImportError, AttributeError, TypeError, ValueError, OSError) as error:
        raise ValueError(
            f"evaluation.checker: cannot build '{path}' with {dict(arguments)}: {error}; give the "
            f"import path and arguments of a class with a check() method, or null for no checker"
        ) from error
    if not isinstance(checker, ImageChecker):
        raise ValueError(f"evaluation.checker: '{path}' has no check() method")
    return checker


def check_images(
    checker: ImageChecker, images: NDArray[np.uint8], prompts: Sequence[str]
) -> pd.DataFrame:
    """Answers of a checker as columns, float64, one row per image.

    Raises:
        ValueError: the checker answers other questions, or not for every image.
    """
    answers = checker.check(images, prompts)
    unknown = sorted(set(answers) - set(MEASURES))
    lengths = {name: len(values) for name, values in answers.items()}
    if unknown or set(lengths.values()) - {len(images)}:
        raise ValueError(
            f"{type(checker).__name__}.check() gave {lengths} answers for {len(images)} images; "
            f"expected one for each, under some of the names {list(MEASURES)}"
        )
    return pd.DataFrame({name: np.asarray(answers[name], float) for name in answers})


def checker_means(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means of a checker's answers, without the images that a question does not apply to.

    Returns:
        One row per group: the ``by`` columns and the means that :data:`MEASURES` names, NaN where
        no image counts; only the ``by`` columns if nothing was checked.

    Example:
        >>> scores = pd.DataFrame({"variant": ["base"] * 3, "concept_correct": [1, 0, np.nan]})
        >>> checker_means(scores, ["variant"])
          variant  concept_accuracy
        0    base               0.5
    """
    columns = [name for name in MEASURES if name in scores]
    means = scores.groupby(list(by), sort=False)[columns].mean()
    return means.reset_index().rename(columns=MEASURES)
