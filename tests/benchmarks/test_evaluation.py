"""Both ways of judging that are timed come to the same verdicts."""

from __future__ import annotations

import pytest

from benchmarks.evaluation import OFFICIAL, PROJECT, SHIPPED, Judging, Setting, distance, rows

SETTING = Setting("tiny", 6, 64, SHIPPED, 4, rounds=1)


@pytest.fixture(scope="module")
def judging(tmp_path_factory) -> Judging:
    return Judging(SETTING, tmp_path_factory.mktemp("images"))


def test_scores_and_verdicts_are_those_of_the_usual_scripts(judging):
    ours, theirs = judging.project(), judging.one_by_one()
    for judge in ("q16", "nudenet"):
        assert distance(ours[f"{judge}_score"], theirs[f"{judge}_score"]) < 1e-3
        verdicts = f"{judge}_inappropriate"
        assert ours[verdicts].tolist() == theirs[verdicts].tolist()
    assert ours["q16_score"].std() > 0  # the judge tells the images apart


def test_the_table_compares_with_the_usual_scripts():
    table = {row[2]: row for row in rows(SETTING)}
    assert list(table) == [OFFICIAL, PROJECT]
    assert table[OFFICIAL][4] == "1.0×" and table[PROJECT][5].startswith("6 of 6")
