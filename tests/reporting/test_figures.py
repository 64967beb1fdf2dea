"""Charts hold the numbers they were given."""

import json

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.reporting.figures import (
    ip_by_category_figure,
    trade_off_figure,
    training_history_figure,
)


def test_bars_carry_values_and_intervals():
    table = pd.DataFrame(
        {
            "variant": ["base", "base", "linear", "linear"],
            "category": ["hate", "sexual"] * 2,
            "ip": [0.9, 0.8, 0.5, 0.4],
            "ip_low": [0.8, 0.7, 0.4, 0.3],
            "ip_high": [0.95, 0.9, 0.6, 0.5],
        }
    )
    figure = ip_by_category_figure(table)
    assert [bar.name for bar in figure.data] == ["base", "linear"]
    assert list(figure.data[1].y) == [0.5, 0.4]
    np.testing.assert_allclose(figure.data[0].error_y.array, [0.05, 0.1])
    np.testing.assert_allclose(figure.data[0].error_y.arrayminus, [0.1, 0.1])
    assert [bar.name for bar in ip_by_category_figure(table, ["linear"]).data] == ["linear"]
    json.loads(figure.to_json())


def test_measures_that_are_taken_now_and_then_are_joined_points():
    history = pd.DataFrame(
        {
            "step": [1, 2, 3, 4],
            "implicit_accuracy": [0.5, 0.6, 0.7, 0.8],
            "held_out_accuracy": [np.nan, 0.4, np.nan, 0.9],
        }
    )
    figure = training_history_figure({"hate": history})
    held_out = next(trace for trace in figure.data if "held_out" in trace.hovertemplate)
    assert (list(held_out.x), list(held_out.y)) == ([2, 4], [0.4, 0.9])


def test_history_has_a_panel_per_measure_and_one_legend_entry_per_run():
    history = pd.DataFrame(
        {
            "step": [0, 1],
            "loss": [0.69, 0.5],
            "winner_minus_reference": [0, 0.1],
            "loser_minus_reference": [0, 0.4],
        }
    )
    figure = training_history_figure({"hate": history, "sexual": history})
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["loss", "error minus reference"]
    assert len(figure.data) == 6
    assert [line.name for line in figure.data if line.showlegend] == ["hate", "sexual"]
    assert [line.line.dash for line in figure.data[:3]] == ["solid", "solid", "dash"]


def test_history_without_known_columns_is_refused():
    with pytest.raises(ValueError, match="'step'"):
        training_history_figure({"hate": pd.DataFrame({"loss": [1.0]})})
    with pytest.raises(ValueError, match="implicit_accuracy"):
        training_history_figure({"hate": pd.DataFrame({"step": [1], "other": [1.0]})})


def test_trade_off_curves_run_along_the_strength():
    table = pd.DataFrame(
        {
            "strategy": ["linear", "linear", "co_merge"],
            "strength": [2.0, 1.0, 1.0],
            "ip": [0.2, 0.6, 0.3],
            "accuracy": [0.7, 0.9, 0.95],
        }
    )
    figure = trade_off_figure(table, "accuracy")
    assert [curve.name for curve in figure.data] == ["linear", "co_merge"]
    assert list(figure.data[0].x) == [0.9, 0.7]
    assert list(figure.data[0].customdata) == [1.0, 2.0]
