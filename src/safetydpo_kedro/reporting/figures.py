"""Interactive charts of training and evaluation, as Plotly figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Okabe and Ito's palette, which colour-blind readers can tell apart, dark enough on white.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#7F7F7F",
    "#8C564B",
    "#000000",
    "#B2B200",
    "#5E4FA2",
)
HISTORY_PANELS: Mapping[str, tuple[str, ...]] = {
    "loss": ("loss",),
    "implicit accuracy": ("implicit_accuracy", "held_out_accuracy"),
    "error minus reference": ("winner_minus_reference", "loser_minus_reference"),
    "gradient norm": ("gradient_norm",),
}


def ip_by_category_figure(table: pd.DataFrame, variants: Sequence[str] | None = None) -> go.Figure:
    """Grouped bars: IP of each variant in each category, with confidence intervals.

    Args:
        table: ``per_category_table``: variant, category, ip, ip_low, ip_high.
        variants: which to show and in which order; ``None`` shows all.

    Returns:
        A bar chart over [0, 1].
    """
    figure = go.Figure()
    for i, variant in enumerate(variants or table["variant"].unique()):
        rows = table[table["variant"] == variant]
        figure.add_bar(
            name=variant,
            x=rows["category"].tolist(),
            y=rows["ip"].tolist(),
            error_y={
                "type": "data",
                "symmetric": False,
                "array": (rows["ip_high"] - rows["ip"]).tolist(),
                "arrayminus": (rows["ip"] - rows["ip_low"]).tolist(),
                "thickness": 1,
                "width": 2,
            },
            marker_color=COLOURS[i % len(COLOURS)],
        )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_yaxes(title="inappropriate probability", range=[0, 1.02])
    return styled(figure, "Inappropriate probability by category")


def training_history_figure(
    histories: Mapping[str, pd.DataFrame],
    panels: Mapping[str, Sequence[str]] = HISTORY_PANELS,
    title: str = "Training history",
) -> go.Figure:
    """Curves over training steps, one panel below the other, one colour per run.

    Args:
        histories: name of the run → table with ``step`` and the columns named in ``panels``.
        panels: panel title → columns drawn in it; the second and later ones are dashed. A panel
            of which no run has a column is left out.
        title: of the figure.

    Returns:
        A figure with one row per panel.

    Raises:
        ValueError: no run has any of the columns, or one lacks ``step``.
    """
    columns = {column for history in histories.values() for column in history}
    shown = {name: [c for c in wanted if c in columns] for name, wanted in panels.items()}
    shown = {name: present for name, present in shown.items() if present}
    if not shown or not all("step" in history for history in histories.values()):
        raise ValueError(
            f"training histories need 'step' and some of {[c for p in panels.values() for c in p]}"
            f", got {sorted(columns)}"
        )
    figure = make_subplots(
        len(shown), 1, shared_xaxes=True, subplot_titles=list(shown), vertical_spacing=0.07
    )
    for i, (run, history) in enumerate(histories.items()):
        first = True
        for row, present in enumerate(shown.values(), start=1):
            for j, column in enumerate(c for c in present if c in history):
                points = history[["step", column]].dropna()  # held-out pairs are seen now and then
                figure.add_scatter(
                    x=points["step"].tolist(),
                    y=points[column].tolist(),
                    mode="lines",
                    name=run,
                    legendgroup=run,
                    showlegend=first,
                    hovertemplate=f"{run}, {column}: %{{y:.4g}} at step %{{x}}<extra></extra>",
                    line={
                        "color": COLOURS[i % len(COLOURS)],
                        "width": 1.5,
                        "dash": "solid" if j == 0 else "dash",
                    },
                    row=row,
                    col=1,
                )
                first = False
    figure.update_xaxes(title="step", row=len(shown), col=1)
    figure = styled(figure, title)
    return figure.update_layout(height=100 + 190 * len(shown))


def trade_off_figure(
    table: pd.DataFrame,
    quality: str,
    *,
    ip: str = "ip",
    group: str = "strategy",
    strength: str = "strength",
    quality_title: str | None = None,
    spread: str | None = None,
    title: str = "Safety against quality over merge strength",
) -> go.Figure:
    """IP against quality, one curve per merge strategy over its strength.

    Args:
        table: one row per strategy and strength.
        quality: column of the horizontal axis, for example accuracy on safe prompts.
        ip: column of the vertical axis.
        group: column that names a curve.
        strength: column that orders and labels the points of a curve.
        quality_title: of the horizontal axis; the column's name if not given.
        spread: column of the error bars of ``ip``, where it is not NaN; None: no bars.
        title: of the figure.

    Returns:
        A line chart; below and right is better when a higher ``quality`` is.
    """
    figure = go.Figure()
    for i, (name, rows) in enumerate(table.groupby(group, sort=False)):
        rows = rows.sort_values(strength)
        figure.add_scatter(
            x=rows[quality].tolist(),
            y=rows[ip].tolist(),
            error_y=None
            if spread is None
            else {"type": "data", "array": rows[spread].fillna(0).tolist(), "thickness": 1},
            customdata=rows[strength].tolist(),
            text=[f"× {value:g}" for value in rows[strength]],
            mode="lines+markers",
            name=str(name),
            line={"color": COLOURS[i % len(COLOURS)], "dash": "dot" if i >= len(COLOURS) else None},
            hovertemplate=(
                f"{name}, {strength} %{{customdata:.3g}}<br>{quality} %{{x:.3f}}<br>"
                "IP %{y:.3f}<extra></extra>"
            ),
        )
    figure.update_xaxes(title=quality_title or quality)
    figure.update_yaxes(title="inappropriate probability", range=[0, 1.02])
    return styled(figure, title)


def styled(figure: go.Figure, title: str) -> go.Figure:
    """The look that all figures share."""
    return figure.update_layout(
        title=title, template="plotly_white", margin={"l": 60, "r": 20, "t": 60, "b": 50}
    )
