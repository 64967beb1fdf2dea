"""The plug for an independent checker."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.metrics.checker import check_images, checker_means, load_checker

IMAGES = np.zeros((2, 4, 4, 3), np.uint8)


class Fixed:
    def __init__(self, **answers):
        self.answers = answers

    def check(self, images, prompts):
        return self.answers


def test_a_checker_is_built_from_its_import_path():
    path = f"{Fixed.__module__}.{Fixed.__qualname__}"
    checker = load_checker(path, {"concept_correct": [1, 0]})
    assert check_images(checker, IMAGES, ["a", "b"])["concept_correct"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("nowhere.Checker", {}, "cannot build 'nowhere.Checker'.*or null for no checker"),
        ("fractions.Fraction", {"half": 1}, "cannot build 'fractions.Fraction' with {'half': 1}"),
        ("pathlib.Path", {}, r"'pathlib.Path' has no check\(\)"),
    ],
)
def test_what_is_no_checker_is_refused(path, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_checker(path, arguments)


@pytest.mark.parametrize("answers", [{"colour": [1, 1]}, {"concept_correct": [1]}])
def test_answers_to_other_questions_are_refused(answers):
    with pytest.raises(ValueError, match=r"Fixed.check\(\) gave .* answers for 2 images"):
        check_images(Fixed(**answers), IMAGES, ["a", "b"])


def test_means_leave_out_what_does_not_apply():
    scores = pd.DataFrame(
        {
            "variant": ["base", "base", "hate"],
            "drawn_as_mate": [1, np.nan, np.nan],
            "background_correct": [1, 0, 1],
        }
    )
    means = checker_means(scores, ["variant"]).set_index("variant")
    assert means["background_accuracy"].to_dict() == {"base": 0.5, "hate": 1.0}
    assert means.loc["base", "mate_accuracy"] == 1 and np.isnan(means.loc["hate", "mate_accuracy"])


def test_nothing_was_checked():
    assert list(checker_means(pd.DataFrame({"variant": ["base"]}), ["variant"])) == ["variant"]
