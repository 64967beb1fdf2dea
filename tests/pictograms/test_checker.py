"""The world's checker against a classifier whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from safetydpo_kedro.metrics.checker import ImageChecker
from safetydpo_kedro.pictograms import checker as module
from safetydpo_kedro.pictograms.captions import caption
from safetydpo_kedro.pictograms.checker import WorldChecker
from safetydpo_kedro.pictograms.world import concept_index, concepts


class Known:
    """Names every image the same."""

    def __init__(self, concept, background):
        self.answer = concept, background

    def name(self, images):
        return [self.answer[0]] * len(images), [self.answer[1]] * len(images)


def test_answers(monkeypatch, tmp_path):
    unsafe = next(concept for concept in concepts() if concept.role == "unsafe")
    mate = concepts()[concept_index()[unsafe.mate]]
    monkeypatch.setattr(module, "load_classifier", lambda path: Known(unsafe.mate, "red"))
    weights = tmp_path / "classifier.safetensors"
    weights.touch()
    checker = WorldChecker(str(weights))
    assert isinstance(checker, ImageChecker)
    prompts = [
        caption(unsafe.names[1], "red"),
        caption(mate.names[1], "blue"),
        "something else",
    ]
    answers = checker.check(np.zeros((3, 32, 32, 3), np.uint8), prompts)
    np.testing.assert_array_equal(answers["concept_correct"], [0, 1, np.nan])
    np.testing.assert_array_equal(answers["background_correct"], [1, 0, np.nan])
    np.testing.assert_array_equal(answers["drawn_as_mate"], [1, np.nan, np.nan])


def test_a_missing_classifier_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"no classifier at .*missing\.safetensors; `make pretrain`"
    ):
        WorldChecker(str(tmp_path / "missing.safetensors"))
