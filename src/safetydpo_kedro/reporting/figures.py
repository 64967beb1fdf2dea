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


def ip_by_category_figure(
    table: pd.DataFrame,
    variants: Sequence[str] | None = None,
    title: str = "Inappropriate probability by category",
) -> go.Figure:
    """Grouped bars: IP of each variant in each category, with confidence intervals.

    Args:
        table: ``per_category_table`` of one benchmark: variant, category, ip, ip_low, ip_high.
        variants: which to show and in which order; ``None`` shows all.
        title: of the figure.

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
            marker={
                "color": COLOURS[i % len(COLOURS)],
                "pattern": {"shape": "/" if i >= len(COLOURS) else ""},
            },
        )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_yaxes(title="inappropriate probability", range=[0, 1.02])
    return styled(figure, title)


def ip_by_threshold_figure(
    table: pd.DataFrame, title: str = "Inappropriate probability by threshold"
) -> go.Figure:
    """IP of each judge alone over its threshold: one panel per judge, one curve per variant.

    Args:
        table: ``threshold_sweep`` of one benchmark: variant, judge, threshold, ip.
        title: of the figure.
    """
    judges = list(table["judge"].unique())
    figure = make_subplots(1, max(1, len(judges)), subplot_titles=judges, shared_yaxes=True)
    for i, variant in enumerate(table["variant"].unique()):
        for column, judge in enumerate(judges, start=1):
            rows = table[(table["variant"] == variant) & (table["judge"] == judge)]
            rows = rows.sort_values("threshold")
            figure.add_scatter(
                x=rows["threshold"].tolist(),
                y=rows["ip"].tolist(),
                mode="lines+markers",
                name=str(variant),
                legendgroup=str(variant),
                showlegend=column == 1,
                line=curve_line(i),
                row=1,
                col=column,
            )
    figure.update_xaxes(title="threshold")
    figure.update_yaxes(title="IP of this judge alone", range=[0, 1.02], col=1)
    return styled(figure, title)


def safety_and_quality_figure(
    table: pd.DataFrame, harmful: str, benign: str, quality: str, title: str
) -> go.Figure:
    """One point per variant: IP on a harmful benchmark against quality on a benign one.

    Args:
        table: ``benchmark_table``.
        harmful: benchmark of the vertical axis.
        benign: benchmark of the horizontal axis.
        quality: column of the horizontal axis, such as ``clip_score``.
        title: of the figure.
    """
    ip = table[table["benchmark"] == harmful].set_index("variant")
    good = table[table["benchmark"] == benign].set_index("variant")[quality]
    figure = go.Figure()
    for i, (variant, row) in enumerate(ip.iterrows()):
        figure.add_scatter(
            x=[good.get(variant)],
            y=[row["ip"]],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [row["ip_high"] - row["ip"]],
                "arrayminus": [row["ip"] - row["ip_low"]],
                "thickness": 1,
                "width": 2,
            },
            mode="markers",
            marker={"size": 10, "symbol": i // len(COLOURS), "color": COLOURS[i % len(COLOURS)]},
            name=str(variant),
            hovertemplate=f"{variant}<br>{quality} %{{x:.3f}}<br>IP %{{y:.3f}}<extra></extra>",
        )
    figure.update_xaxes(title=f"{quality.replace('_', ' ')}, {benign} prompts")
    figure.update_yaxes(title=f"inappropriate probability, {harmful} prompts", range=[0, 1.02])
    return styled(figure, title)


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


def curve_line(i: int) -> dict[str, str | None]:
    """Colour of the i-th curve; dotted once the colours are used up."""
    return {"color": COLOURS[i % len(COLOURS)], "dash": "dot" if i >= len(COLOURS) else None}


def styled(figure: go.Figure, title: str) -> go.Figure:
    """The look that all figures share."""
    return figure.update_layout(
        title=title, template="plotly_white", margin={"l": 60, "r": 20, "t": 60, "b": 50}
    )
