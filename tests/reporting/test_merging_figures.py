"""Charts of ownership show the numbers of their tables."""

from __future__ import annotations

import pandas as pd
import pytest

from safetydpo_kedro.reporting.merging_figures import ownership_histogram_figure, share_heatmap

OWNERSHIP = pd.DataFrame(
    {
        "layer": ["a.to_k", "a.to_k", "b.to_q", "b.to_q"],
        "expert": ["x", "y", "x", "y"],
        "units": [10, 10, 40, 40],
        "owned": [0.7, 0.3, 0.2, 0.8],
        "wins": [0.6, 0.4, 0.35, 0.65],
    }
)
CONCENTRATION = pd.DataFrame(
    {
        "expert": ["x", "x", "y", "y"],
        "low": [0.0, 0.5, 0.0, 0.5],
        "high": [0.5, 1.0, 0.5, 1.0],
        "units": [1, 14, 2, 33],
    }
)


@pytest.mark.parametrize("column", ["owned", "wins"])
def test_a_heat_map_is_the_column(column):
    figure = share_heatmap(OWNERSHIP.sample(frac=1, random_state=0), column, "Some title")
    heat_map = figure.data[0]
    for _, row in OWNERSHIP.iterrows():
        cell = heat_map.z[heat_map.y.index(row["layer"])][heat_map.x.index(row["expert"])]
        assert cell == row[column]
    assert list(heat_map.y) == ["a.to_k", "b.to_q"]
    assert figure.layout.title.text == "Some title"


def test_the_histogram_is_both_tables():
    figure = ownership_histogram_figure(OWNERSHIP, CONCENTRATION)
    bars = {(bar.name, bar.xaxis): bar for bar in figure.data}
    assert len(bars) == len(figure.data) == 4
    assert bars["x", "x"].y == pytest.approx([0.7 * 10 + 0.2 * 40])
    assert bars["y", "x"].y == pytest.approx([0.3 * 10 + 0.8 * 40])
    assert list(bars["x", "x2"].y) == [1, 14]
    assert list(bars["y", "x2"].y) == [2, 33]
    assert list(bars["y", "x2"].x) == [0.25, 0.75]
    assert list(bars["y", "x2"].width) == [0.5, 0.5]
    assert figure.layout.barmode == "stack"
    assert [bar.name for bar in figure.data if bar.showlegend is not False] == ["x", "y"]
    assert bars["x", "x"].marker.color == bars["x", "x2"].marker.color
