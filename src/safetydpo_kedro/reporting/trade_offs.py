"""What merges cost and gain: tables and figures of the ablations, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
import plotly.graph_objects as go

from safetydpo_kedro.reporting.figures import COLOURS, curve_line, styled

TRIAL = ["sweep", "experts", "arm", "merged", "strength"]
MEASURES = ("ip", "mate", "safe", "neutral", "others")


def summarise_trials(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of each trial and seed.

    Args:
        scores: one row per image: ``sweep, experts, arm, merged, strength, seed_name, own,
            benchmark, inappropriate`` and, if there is a checker, its answers.

    Returns:
        One row per trial and seed: ``ip`` (unsafe prompts of merged categories), ``mate`` (the
        same, drawn as the safe mate), ``safe`` and ``neutral`` (concept there), ``others``
        (concept there, unsafe prompts of categories that were not merged); NaN where nothing
        counts.
    """
    parts = {
        "ip": ("unsafe", True, "inappropriate"),
        "mate": ("unsafe", True, "drawn_as_mate"),
        "safe": ("safe", None, "concept_correct"),
        "neutral": ("neutral", None, "concept_correct"),
        "others": ("unsafe", False, "concept_correct"),
    }
    keys = [*TRIAL, "seed_name"]
    index = scores[keys].drop_duplicates().set_index(keys).index
    columns = {}
    for name, (benchmark, own, column) in parts.items():
        rows = scores[scores["benchmark"] == benchmark]
        rows = rows if own is None else rows[rows["own"] == own]
        values = rows.groupby(keys, sort=False)[column].mean() if column in rows else pd.Series()
        columns[name] = values.reindex(index).astype(float)
    return pd.DataFrame(columns, index=index).reset_index()


def over_seeds(trials: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n − 1) of each trial over its seeds.

    Returns:
        One row per trial: its columns, ``seeds``, and for each measure ``<measure>`` and
        ``<measure>_sd`` (NaN with one seed).
    """
    return spread_of(trials, TRIAL, MEASURES).reset_index()


def spread_of(table: pd.DataFrame, by: Sequence[str], measures: Iterable[str]) -> pd.DataFrame:
    """``seeds``, and of each measure mean and standard deviation (n − 1), by group.

    Args:
        table: one row per group and seed.
        by: columns that make a group.
        measures: columns.
    """
    groups = table.groupby(list(by), sort=False)
    result = groups.size().rename("seeds").to_frame()
    for name in measures:
        result[name] = groups[name].mean()
        result[f"{name}_sd"] = groups[name].std()
    return result


def trade_off_figure(table: pd.DataFrame, title: str) -> go.Figure:
    """IP against what is left of safe and neutral concepts, one curve over strength per arm.

    Args:
        table: of :func:`over_seeds`.
        title: of the figure.

    Returns:
        A line chart with the standard deviation of IP as error bars; quality falls to the right,
        so nearer to the lower left is better.
    """
    plain = table["experts"] == "standard"
    curves = table["arm"].where(plain, table["arm"] + ", " + table["experts"] + " experts")
    figure = go.Figure()
    for i, (name, rows) in enumerate(table.groupby(curves, sort=False)):
        rows = rows.sort_values("strength")
        figure.add_scatter(
            x=rows[["safe", "neutral"]].min(axis=1).tolist(),
            y=rows["ip"].tolist(),
            error_y={"type": "data", "array": rows["ip_sd"].fillna(0).tolist(), "thickness": 1},
            customdata=rows["strength"].tolist(),
            text=[f"× {value:g}" for value in rows["strength"]],
            mode="lines+markers",
            name=str(name),
            line=curve_line(i),
            hovertemplate=(
                f"{name}, strength %{{customdata:.3g}}<br>kept %{{x:.3f}}<br>"
                "IP %{y:.3f}<extra></extra>"
            ),
        )
    figure.update_xaxes(title="concepts kept: the lower of safe and neutral", autorange="reversed")
    figure.update_yaxes(title="inappropriate probability", rangemode="tozero")
    return styled(figure, title)


def transfer_figure(matrix: pd.DataFrame) -> go.Figure:
    """Heat map: IP on each category (columns) under each expert (rows)."""
    figure = go.Figure(
        go.Heatmap(
            z=matrix.to_numpy().tolist(),
            x=list(matrix.columns),
            y=list(matrix.index),
            zmin=0,
            zmax=1,
            colorscale="Viridis",
            text=[[f"{value:.2f}" for value in row] for row in matrix.to_numpy()],
            texttemplate="%{text}",
            colorbar={"title": "IP"},
        )
    )
    figure.update_xaxes(title="prompts of")
    figure.update_yaxes(title="expert for", autorange="reversed")
    return styled(figure, "Each expert on every category")


def counts_figure(table: pd.DataFrame) -> go.Figure:
    """IP (solid) and neutral concepts kept (dashed) by the number of merged experts."""
    figure = go.Figure()
    for i, (arm, rows) in enumerate(table.groupby("arm", sort=False)):
        for measure, dash in (("ip", "solid"), ("neutral", "dash")):
            figure.add_scatter(
                x=rows["merged"].tolist(),
                y=rows[measure].tolist(),
                error_y={"type": "data", "array": rows[f"{measure}_sd"].fillna(0).tolist()},
                name=f"{arm}: {'IP' if measure == 'ip' else 'neutral concepts kept'}",
                line={"color": COLOURS[i % len(COLOURS)], "dash": dash},
            )
    figure.update_xaxes(title="merged experts", dtick=1)
    figure.update_yaxes(range=[0, 1.02])
    return styled(figure, "From one expert to all")


def transfer_matrix(scores: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """IP of each expert alone on unsafe prompts of every category, the mean over seeds.

    Args:
        scores: judged images of the sweep ``transfer``.
        order: categories.
    """
    unsafe = scores[(scores["sweep"] == "transfer") & (scores["benchmark"] == "unsafe")]
    by_seed = unsafe.groupby(["arm", "category", "seed_name"])["inappropriate"].mean()
    return by_seed.groupby(["arm", "category"]).mean().unstack().loc[list(order), list(order)]
