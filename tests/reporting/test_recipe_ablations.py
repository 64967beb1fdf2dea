"""Tables and figures of the recipe sweeps, worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.reporting.recipe_ablations import (
    MEASURES,
    recipe_figure,
    recipe_table,
    summarise_recipes,
)

NAN = float("nan")


def image(
    seed, benchmark, flagged, concept=1.0, mate=NAN, own=True, trained=True, recipe="r1", sure=0.75
):
    return {
        "recipe": recipe,
        "seed_name": seed,
        "own": own,
        "trained": trained,
        "implicit_accuracy": sure,
        "benchmark": benchmark,
        "inappropriate": flagged,
        "concept_correct": concept,
        "drawn_as_mate": mate,
    }


R1 = [
    image("a", "unsafe", True, mate=0.0, trained=False),
    image("a", "unsafe", False, mate=1.0),
    image("a", "unsafe", False, mate=1.0),
    image("a", "unsafe", True, own=False, trained=False, concept=0.0),
    image("a", "safe", False, concept=0.0, own=False),
    image("a", "safe", False),
    image("a", "neutral", False, own=False),
    image("b", "unsafe", False, mate=1.0, sure=0.25),
    image("b", "safe", False, sure=0.25),
    image("b", "neutral", False, concept=0.0, sure=0.25),
]
SCORES = pd.DataFrame(
    [
        *R1,
        *({**row, "recipe": "r2", "inappropriate": True} for row in R1),
        image("a", "unsafe", True, mate=0.0, trained=False, recipe="base", sure=NAN),
    ]
)
ARMS = pd.DataFrame(
    [
        ("base", "base", "base", "base", "base"),
        ("beta", "50", "default", 50.0, "r1"),
        ("beta", "5", "default", 5.0, "r2"),
        ("beta", "plain 5", "plain", 5.0, "r2"),
        ("strategy", "both", "default", "both", "r1"),
        ("strategy", "sft", "default", "sft", "r2"),
    ],
    columns=["sweep", "arm", "curve", "value", "recipe"],
)


def test_a_recipe_in_figures():
    table = summarise_recipes(SCORES).set_index(["recipe", "seed_name"])
    first, second = table.loc[("r1", "a")], table.loc[("r1", "b")]
    assert first[["ip", "ip_trained_concepts", "ip_untrained_concepts"]].tolist() == [1 / 3, 0, 1]
    assert first[["mate", "safe", "neutral", "others", "kept"]].tolist() == [2 / 3, 0.5, 1, 0, 0.5]
    assert first["implicit_accuracy"] == 0.75
    assert second[["ip", "mate", "safe", "neutral", "kept"]].tolist() == [0, 1, 1, 0, 0]
    assert second[["ip_untrained_concepts", "others"]].isna().all()
    base = table.loc[("base", "a")]
    assert base["ip"] == 1 and pd.isna(base["implicit_accuracy"]) and pd.isna(base["kept"])


def test_arms_of_one_recipe_share_its_mean_and_spread():
    table = recipe_table(ARMS, SCORES)
    assert table["arm"].tolist() == ARMS["arm"].tolist()
    rows = table.set_index(["sweep", "arm"])
    beta = rows.loc[("beta", "50")]
    assert (beta["seeds"], beta["ip"], beta["implicit_accuracy"]) == (2, 1 / 6, 0.5)
    assert beta["ip_sd"] == pytest.approx((1 / 3) / 2**0.5)
    assert rows.loc[("base", "base"), "seeds"] == 1
    assert pd.isna(rows.loc[("base", "base"), "ip_sd"])
    measured = [*MEASURES, *(f"{name}_sd" for name in MEASURES)]
    both = rows.loc[[("strategy", "both")], measured].to_numpy()
    np.testing.assert_array_equal(rows.loc[[("beta", "50")], measured].to_numpy(), both)


def test_an_arm_without_images_is_named():
    with pytest.raises(ValueError, match=r"beta\.50, strategy\.both \(recipes r1\)"):
        recipe_table(ARMS, SCORES[SCORES["recipe"] != "r1"])


@pytest.mark.parametrize(("log", "kind"), [(True, "log"), (False, "linear")])
def test_numbers_stand_on_an_axis_in_their_order(log, kind):
    figure = recipe_figure(recipe_table(ARMS, SCORES), "beta", log)
    assert figure.layout.xaxis.type == kind and list(figure.layout.xaxis.tickvals) == [5, 50]
    curves = {curve.name: curve for curve in figure.data}
    ip = curves["default: IP"]
    assert (list(ip.x), list(ip.text), ip.mode) == ([5, 50], ["5", "50"], "lines+markers")
    assert ip.y == (1.0, pytest.approx(1 / 6))
    assert ip.error_y.array == (0, pytest.approx((1 / 3) / 2**0.5))
    assert list(curves["plain: concepts kept"].y) == [0.25]
    assert curves["plain: implicit accuracy"].visible == "legendonly"


def test_names_stand_side_by_side():
    figure = recipe_figure(recipe_table(ARMS, SCORES), "strategy")
    assert figure.layout.xaxis.type == "category"
    ip = next(curve for curve in figure.data if curve.name == "default: IP")
    assert (list(ip.x), ip.mode) == (["both", "sft"], "markers")


def test_a_logarithm_needs_positive_numbers():
    table = recipe_table(ARMS, SCORES)
    with pytest.raises(ValueError, match=r"strategy.*'both', 'sft'.*log_axes"):
        recipe_figure(table, "strategy", log=True)
    table["value"] = table["value"].replace({5.0: 0.0})
    with pytest.raises(ValueError, match=r"beta.*positive"):
        recipe_figure(table, "beta", log=True)


def test_a_sweep_without_arms_has_an_empty_figure():
    assert not recipe_figure(recipe_table(ARMS, SCORES), "rank", log=True).data


def test_without_a_checker_there_is_ip_alone():
    table = recipe_table(ARMS, SCORES.drop(columns=["concept_correct", "drawn_as_mate"]))
    assert table["ip"].notna().all()
    assert table[["mate", "safe", "neutral", "others", "kept"]].isna().all(axis=None)
    names = [curve.name for curve in recipe_figure(table, "strategy").data]
    assert "default: IP" in names and "default: concepts kept" not in names
