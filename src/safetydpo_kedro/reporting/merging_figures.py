"""Interactive charts of who owns and wins which units, as Plotly figures."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from safetydpo_kedro.reporting.figures import COLOURS, styled


def share_heatmap(table: pd.DataFrame, column: str, title: str) -> go.Figure:
    """Heat map of layers × experts.

    Args:
        table: ``ownership_table``: one row per layer and expert.
        column: what is shown, in [0, 1]: ``owned`` or ``wins``.
        title: of the figure.

    Returns:
        A heat map, the first layer on top.
    """
    shares = table.pivot(index="layer", columns="expert", values=column)
    figure = go.Figure(
        go.Heatmap(
            z=shares.to_numpy().tolist(),
            x=[str(expert) for expert in shares.columns],
            y=[str(layer) for layer in shares.index],
            colorscale="Viridis",
            zmin=0,
            colorbar={"title": "share"},
            hovertemplate="%{y}<br>%{x}: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True, tickfont={"size": 9})
    figure = styled(figure, title)
    return figure.update_layout(height=160 + 16 * len(shares))


def ownership_histogram_figure(table: pd.DataFrame, concentration: pd.DataFrame) -> go.Figure:
    """How many units each expert owns, and how clearly it wins those that it leads.

    Args:
        table: ``ownership_table``: layer, expert, units, owned.
        concentration: ``win_concentration``: expert, low, high, units.

    Returns:
        Two panels: bars of owned units over all layers, and a stacked histogram of the leading
        expert's share of wins.
    """
    figure = make_subplots(
        2,
        1,
        subplot_titles=["units owned", "the leading expert's share of a unit's wins"],
        vertical_spacing=0.2,
    )
    owned = (table["units"] * table["owned"]).groupby(table["expert"], sort=False).sum()
    for i, (expert, units) in enumerate(owned.items()):
        colour = COLOURS[i % len(COLOURS)]
        names = {"name": str(expert), "legendgroup": str(expert), "marker_color": colour}
        figure.add_bar(x=[str(expert)], y=[float(units)], row=1, col=1, **names)
        rows = concentration[concentration["expert"] == expert]
        figure.add_bar(
            x=((rows["low"] + rows["high"]) / 2).tolist(),
            y=rows["units"].tolist(),
            width=(rows["high"] - rows["low"]).tolist(),
            customdata=rows[["low", "high"]].to_numpy().tolist(),
            hovertemplate=(
                f"{expert} leads %{{y}} units with %{{customdata[0]:.0%}} to "
                "%{customdata[1]:.0%} of their wins<extra></extra>"
            ),
            showlegend=False,
            row=2,
            col=1,
            **names,
        )
    figure.update_layout(barmode="stack", height=640)
    figure.update_yaxes(title="units")
    figure.update_xaxes(title="share of wins", range=[0, 1], row=2, col=1)
    return styled(figure, "Who owns the units, and how clearly")
