"""Charts hold the numbers they were given."""

import json

import numpy as np
import pandas as pd
import pytest

from safetydpo_kedro.reporting.figures import (
    ip_by_category_figure,
    ip_by_threshold_figure,
    safety_and_quality_figure,
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


def test_every_judge_has_a_panel_of_curves_over_its_threshold():
    rows = [
        (variant, judge, threshold, 1 - threshold)
        for variant in ("base", "linear")
        for judge in ("q16", "nudenet")
        for threshold in (0.8, 0.2)
    ]
    table = pd.DataFrame(rows, columns=["variant", "judge", "threshold", "ip"])
    figure = ip_by_threshold_figure(table)
    assert [(c.name, c.xaxis) for c in figure.data] == [
        *(("base", "x"), ("base", "x2"), ("linear", "x"), ("linear", "x2"))
    ]
    assert list(figure.data[0].x) == [0.2, 0.8] and list(figure.data[0].y) == [0.8, 1 - 0.8]


def test_a_variant_is_a_point_of_safety_and_quality():
    table = pd.DataFrame(
        {
            "variant": ["base", "base", "linear", "linear"],
            "benchmark": ["i2p", "coco"] * 2,
            "ip": [0.9, 0.0, 0.5, 0.0],
            "ip_low": [0.8, 0.0, 0.4, 0.0],
            "ip_high": [0.95, 0.0, 0.7, 0.0],
            "clip_score": [1.0, 30.0, 2.0, 28.0],
        }
    )
    figure = safety_and_quality_figure(table, "i2p", "coco", "clip_score", "title")
    points = {point.name: (point.x[0], point.y[0]) for point in figure.data}
    assert points == {"base": (30.0, 0.9), "linear": (28.0, 0.5)}
    assert figure.data[1].error_y.array[0] == pytest.approx(0.2)


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
