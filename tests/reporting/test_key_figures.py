"""Key figures against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.reporting.config import TargetsConfig
from safetydpo_kedro.reporting.key_figures import FIGURES, key_figures, key_figures_table

NAN = np.nan
# variant, benchmark, IP, FID, CLIPScore, accuracy of concept, background, mate
TABLE = pd.DataFrame(
    [
        ("base", "unsafe", 0.9, 1.0, 30.0, 0.95, 0.98, 0.0),
        ("base", "safe", 0.0, 2.0, 30.0, 0.96, 0.98, NAN),
        ("base", "neutral", 0.0, 4.0, 25.0, 0.90, 0.98, NAN),
        ("all_single", "unsafe", 0.2, 1.0, 28.0, 0.1, 0.90, 0.5),
        ("all_single", "safe", 0.0, 3.0, 27.0, 0.76, 0.98, NAN),
        ("all_single", "neutral", 0.0, 4.0, 25.0, 0.90, 0.98, NAN),
        ("linear", "unsafe", 0.8, 1.0, 29.0, 0.5, 0.98, 0.1),
        ("fitted_co_merge", "unsafe", 0.4, 1.0, 29.0, 0.2, 0.94, 0.3),
        ("fitted_co_merge", "safe", 0.0, 2.5, 28.5, 0.90, 0.98, NAN),
        ("fitted_co_merge", "neutral", 0.0, 6.0, 24.0, 0.75, 0.98, NAN),
    ],
    columns=[
        *("variant", "benchmark", "ip", "fid", "clip_score"),
        *("concept_accuracy", "background_accuracy", "mate_accuracy"),
    ],
)


def images(variant, category, inappropriate, mate, benchmark="unsafe"):
    return pd.DataFrame(
        {
            "variant": variant,
            "benchmark": benchmark,
            "category": category,
            "inappropriate": inappropriate,
            "drawn_as_mate": mate,
        }
    )


SCORES = pd.concat(
    [
        images("hate", "hate", [True, False, False, False], [0, 1, 1, 1]),
        images("hate", "sexual", [True, True], [0, 0]),
        images("sexual", "sexual", [False, False], [1, 0]),
        images("sexual", "hate", [True], [0]),
        images("hate", "hate", [True], [NAN], benchmark="safe"),
        images("all_single", "hate", [True, False], [0, 1]),
        images("all_single", "sexual", [False, False], [1, 1]),
        images("all_single", "untrained", [True, True], [0, 0]),
    ],
    ignore_index=True,
)


def row(figures: pd.DataFrame, title: str) -> pd.Series:
    return figures.set_index("figure").loc[title]


def test_values_and_the_same_for_all_single():
    figures = key_figures(SCORES, TABLE)
    expected = {
        "IP of base, unsafe prompts": (0.9, NAN),
        "IP of experts on their own category, mean": (0.125, 0.25),
        "IP of all_single, unsafe prompts": (0.2, 0.2),
        "IP of fitted_co_merge, unsafe prompts": (0.4, 0.2),
        "IP of linear, unsafe prompts": (0.8, 0.2),
        "IP of fitted_co_merge minus IP of linear": (-0.4, -0.6),
        "IP of fitted_co_merge minus IP of all_single": (0.2, NAN),
        "concept accuracy, safe prompts, change in points": (-6, -20),
        "concept accuracy, neutral prompts, change in points": (-15, 0),
        "background accuracy, unsafe prompts, change in points": (-4, -8),
        "CLIPScore, safe prompts, change in %": (-5, -10),
        "CLIPScore, neutral prompts, change in %": (-4, 0),
        "FID, safe prompts, change in %": (25, 50),
        "FID, neutral prompts, change in %": (50, 0),
        "drawn as the safe mate, experts on their own category": (0.625, 0.75),
        "drawn as the safe mate, fitted_co_merge": (0.3, 0.5),
    }
    assert dict.fromkeys(figures["figure"]).keys() == expected.keys()
    found = figures.set_index("figure")[["value", "all_single"]]
    wanted = pd.DataFrame(expected, index=["value", "all_single"]).T
    np.testing.assert_allclose(found.to_numpy(float), wanted.loc[found.index].to_numpy(float))


@pytest.mark.parametrize(
    ("target", "bounds", "reached"),
    [
        ({"must": 0.5, "goal": 0.4}, ("≤ 0.5", "≤ 0.4"), "goal"),
        ({"must": 0.5, "goal": 0.1}, ("≤ 0.5", "≤ 0.1"), "must"),
        ({"must": 0.3, "goal": 0.1}, ("≤ 0.3", "≤ 0.1"), "missed"),
        ({"goal": 0.1}, ("", "≤ 0.1"), ""),
        ({}, ("", ""), ""),
    ],
)
def test_targets(target, bounds, reached):
    figures = key_figures(
        SCORES, TABLE, TargetsConfig.model_validate({"ip_fitted_co_merge": target})
    )
    found = row(figures, "IP of fitted_co_merge, unsafe prompts")
    assert (found["must"], found["goal"], found["reached"]) == (*bounds, reached)


def test_lower_bounds_hold_from_above():
    targets = TargetsConfig.model_validate({"ip_base": {"must": 0.85, "goal": 0.95}})
    found = row(key_figures(SCORES, TABLE, targets), "IP of base, unsafe prompts")
    assert (found["must"], found["goal"], found["reached"]) == ("≥ 0.85", "≥ 0.95", "must")


def test_what_was_not_measured_has_neither_value_nor_verdict():
    targets = TargetsConfig.model_validate({"mate_fitted_co_merge": {"must": 0.5}})
    table = TABLE.drop(columns="mate_accuracy")
    found = row(
        key_figures(SCORES.drop(columns="drawn_as_mate"), table, targets),
        "drawn as the safe mate, fitted_co_merge",
    )
    assert np.isnan(found["value"]) and found["must"] == "≥ 0.5" and found["reached"] == ""


def test_every_target_belongs_to_a_figure():
    assert {figure.key for figure in FIGURES} - {None} == set(TargetsConfig.model_fields)


def test_the_terminal_table_survives_a_csv(tmp_path):
    figures = key_figures(SCORES, TABLE)
    figures.to_csv(tmp_path / "figures.csv", index=False)
    table = key_figures_table(pd.read_csv(tmp_path / "figures.csv"))
    assert table.row_count == len(figures)
