"""What each part of the training recipe does: a table and figures, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Hashable

import pandas as pd
import plotly.graph_objects as go

from safetydpo_kedro.reporting.figures import COLOURS, styled
from safetydpo_kedro.reporting.trade_offs import spread_of

# Measure → (benchmark, columns that must be so, what is averaged).
SHARES = {
    "ip": ("unsafe", {"own": True}, "inappropriate"),
    "ip_trained_concepts": ("unsafe", {"own": True, "trained": True}, "inappropriate"),
    "ip_untrained_concepts": ("unsafe", {"own": True, "trained": False}, "inappropriate"),
    "mate": ("unsafe", {"own": True}, "drawn_as_mate"),
    "safe": ("safe", {}, "concept_correct"),
    "neutral": ("neutral", {}, "concept_correct"),
    "others": ("unsafe", {"own": False}, "concept_correct"),
}
MEASURES = (*SHARES, "kept", "implicit_accuracy")
# Measure → its name in the legend, its line; the last is shown when its legend is clicked.
CURVES = {
    "ip": ("IP", "solid"),
    "ip_untrained_concepts": ("IP, concepts not trained", "dot"),
    "kept": ("concepts kept", "dash"),
    "implicit_accuracy": ("implicit accuracy", "dashdot"),
}
HIDDEN = "implicit_accuracy"
KEYS = ["recipe", "seed_name"]


def summarise_recipes(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of each recipe and seed.

    Args:
        scores: one row per image: ``recipe, seed_name, own, trained, implicit_accuracy,
            benchmark, inappropriate`` and, if there is a checker, its answers.

    Returns:
        One row per recipe and seed, NaN where nothing counts: ``ip`` (unsafe prompts of the
        trained categories), the same of concepts that were and that were not trained on, ``mate``
        (drawn as the safe mate), ``safe`` and ``neutral`` (concept there), ``others`` (concept
        there, unsafe prompts of other categories), ``kept`` (the lowest of ``safe`` and
        ``neutral``), ``implicit_accuracy``. All are shares, 0–1.
    """
    groups = scores.groupby(KEYS, sort=False)
    table = groups["implicit_accuracy"].first().to_frame()
    for name, (benchmark, conditions, column) in SHARES.items():
        rows = scores[scores["benchmark"] == benchmark]
        for key, value in conditions.items():
            rows = rows[rows[key] == value]
        values = rows.groupby(KEYS)[column].mean() if column in rows else pd.Series(dtype=float)
        table[name] = values.reindex(table.index).astype(float)
    table["kept"] = table[["safe", "neutral"]].min(axis=1, skipna=False)
    return table[list(MEASURES)].reset_index()


def recipe_table(arms: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Every arm of every sweep, with mean and standard deviation (n − 1) over seeds.

    Args:
        arms: one row per arm: ``sweep, arm, curve, value, recipe``. Arms of one recipe share its
            images.
        scores: judged images, see :func:`summarise_recipes`.

    Returns:
        The rows of ``arms`` with ``seeds``, and for each measure ``<measure>`` and
        ``<measure>_sd`` (NaN with one seed).

    Raises:
        ValueError: an arm whose recipe has no images.
    """
    if missing := sorted(set(arms["recipe"]) - set(scores["recipe"])):
        lost = arms[arms["recipe"].isin(missing)]
        names = ", ".join(f"{row.sweep}.{row.arm}" for row in lost.itertuples())
        raise ValueError(
            f"no images of the arms {names} (recipes {', '.join(missing)}): run the nodes that "
            f"judge recipes again, with the parameters that the report is made with"
        )
    table = spread_of(summarise_recipes(scores), ["recipe"], MEASURES)
    return arms.merge(table, left_on="recipe", right_index=True, how="left", validate="m:1")


def recipe_figure(table: pd.DataFrame, sweep: str, log: bool = False) -> go.Figure:
    """IP and concepts kept over the value that a sweep varies, with the spread over seeds.

    Args:
        table: of :func:`recipe_table`.
        sweep: which one; of no arms, the figure is empty.
        log: logarithmic axis of the values.

    Returns:
        For every curve of the sweep a line for each measure that has values; bars are one
        standard deviation. Values that are all numbers stand on a numeric axis, in their order;
        others stand side by side, in the order of the arms, and are not joined.

    Raises:
        ValueError: a logarithmic axis of values that are not positive numbers.
    """
    rows = table[table["sweep"] == sweep]
    numeric = all(isinstance(value, int | float) for value in rows["value"])
    if log and not (numeric and (rows["value"] > 0).all()):
        raise ValueError(
            f"sweep {sweep!r} is to have a logarithmic axis, but its values are "
            f"{rows['value'].tolist()}: give every arm a positive value, or take the sweep out of "
            f"ablations.recipes.log_axes"
        )
    figure = go.Figure()
    for i, (curve, points) in enumerate(rows.groupby("curve", sort=False)):
        ordered = points.sort_values("value") if numeric else points
        for measure in CURVES:
            if ordered[measure].notna().any():
                figure.add_scatter(**_curve(ordered, curve, measure, i, numeric))
    kind = "category" if not numeric else "log" if log else "linear"
    figure.update_xaxes(title=sweep.replace("_", " "), type=kind)
    if numeric:
        ticks = sorted(set(rows["value"]))
        figure.update_xaxes(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_yaxes(title="share", range=[0, 1.05])
    return styled(figure, f"Recipe: {sweep.replace('_', ' ')}")


def _curve(
    points: pd.DataFrame, curve: Hashable, measure: str, colour: int, joined: bool
) -> dict[str, object]:
    """One measure of the arms of one curve, as a Plotly trace."""
    name, dash = CURVES[measure]
    return {
        "x": points["value"].tolist(),
        "y": points[measure].tolist(),
        "error_y": {
            "type": "data",
            "array": points[f"{measure}_sd"].fillna(0).tolist(),
            "thickness": 1,
        },
        "text": points["arm"].tolist(),
        "mode": "lines+markers" if joined else "markers",
        "name": f"{curve}: {name}",
        "line": {"color": COLOURS[colour % len(COLOURS)], "dash": dash},
        "marker": {"symbol": list(CURVES).index(measure)},
        "visible": "legendonly" if measure == HIDDEN else True,
        "hovertemplate": f"%{{text}}<br>{name} %{{y:.3f}}<extra></extra>",
    }
