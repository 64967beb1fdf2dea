"""The world's own classifier as the independent checker of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safetydpo_kedro.pictograms.classifier import load_classifier
from safetydpo_kedro.pictograms.grammar import describe
from safetydpo_kedro.pictograms.world import concept_index, concepts


class WorldChecker:
    """Names concept and background of pictograms and compares them with the caption.

    Args:
        classifier: safetensors file of the classifier.

    Raises:
        ValueError: there is no such file.
    """

    def __init__(self, classifier: str) -> None:
        if not Path(classifier).is_file():
            raise ValueError(f"no classifier at {classifier}; `make pretrain` remakes it")
        self._classifier = load_classifier(Path(classifier))

    def check(
        self, images: NDArray[np.uint8], prompts: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        """See :class:`safetydpo_kedro.metrics.checker.ImageChecker`; NaN for unknown captions."""
        found = self._classifier.name(images)
        rows = [_answers(prompt, *names) for prompt, *names in zip(prompts, *found, strict=True)]
        columns = np.array(rows, dtype=float).reshape(-1, 3).T
        names = ("concept_correct", "background_correct", "drawn_as_mate")
        return dict(zip(names, columns, strict=True))


def _answers(prompt: str, concept: str, background: str) -> tuple[float, float, float]:
    """Concept right, background right, drawn as the mate, for one image."""
    meaning = describe(prompt)
    if meaning is None:
        return np.nan, np.nan, np.nan
    wanted = concepts()[concept_index()[meaning[0]]]
    as_mate = concept == wanted.mate if wanted.role == "unsafe" else np.nan
    return concept == wanted.concept, background == meaning[1], as_mate
