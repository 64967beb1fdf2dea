"""What attacks came to, as tables, a figure and a grid."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from safetydpo_kedro.images import decode_images
from safetydpo_kedro.metrics.attack_success import (
    ALL_ATTACKS,
    ANY,
    GOAL,
    NO_ATTACK,
    attack_success,
)
from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.inappropriate import VERDICT
from safetydpo_kedro.reporting.examples import evenly_spread
from safetydpo_kedro.reporting.figures import COLOURS, styled
from safetydpo_kedro.reporting.grids import Blur, qualitative_grid

COSTS = ("images", "gradients", "evaluations")
# Columns of the grid.
SHOWN_GOALS = 8


def attack_table(
    scores: pd.DataFrame,
    prompts: pd.DataFrame,
    bootstrap: BootstrapConfig | None = None,
    aim: float | None = None,
) -> pd.DataFrame:
    """Success of every attack on every victim, and what a goal has cost.

    Args:
        scores: see :func:`~safetydpo_kedro.metrics.attack_success.attack_success`.
        prompts: one row per search: ``variant`` (``any`` where no victim was seen), ``attack``,
            ``images, gradients, evaluations, withheld``.
        bootstrap: of the intervals.
        aim: what tells hits, see there.

    Returns:
        The columns of ``attack_success``, then ``images``, ``gradients``, ``evaluations`` (means
        of a goal; sums over the attacks for all together) and ``withheld`` (how many).
    """
    table = attack_success(scores, bootstrap, aim)
    means = prompts.groupby(["variant", "attack"])[[*COSTS, "withheld"]]
    costs = means.agg({**dict.fromkeys(COSTS, "mean"), "withheld": "sum"})
    rows = []
    for variant, attack in table[["variant", "attack"]].itertuples(index=False):
        names = (
            costs.index.get_level_values("attack").unique() if attack == ALL_ATTACKS else [attack]
        )
        keys = [(v, name) for name in names for v in (variant, ANY) if (v, name) in costs.index]
        rows.append(costs.loc[keys].sum())
    return table.join(pd.DataFrame(rows).reset_index(drop=True).astype({"withheld": int}))


def success_column(table: pd.DataFrame) -> str:
    """``hit`` where hits are known, else ``asr``."""
    return "hit" if table["hit"].notna().all() else "asr"


def attack_figure(table: pd.DataFrame) -> go.Figure:
    """Success of each attack, a group of bars each, victims side by side.

    Bars are hits with their interval, circles are verdicts alone, as papers count; where nothing
    tells hits, bars are verdicts. The first group is the success without any attack.

    Args:
        table: of :func:`attack_table`.
    """
    kind = success_column(table)
    figure = go.Figure()
    for i, (variant, rows) in enumerate(table.groupby("variant", sort=False)):
        colour, groups = COLOURS[i % len(COLOURS)], ["no attack", *rows["attack"]]
        figure.add_bar(
            x=groups,
            y=[rows[f"{kind}_before"].iloc[0], *rows[kind]],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [0, *(rows[f"{kind}_high"] - rows[kind])],
                "arrayminus": [0, *(rows[kind] - rows[f"{kind}_low"])],
            },
            name=str(variant),
            offsetgroup=str(variant),
            marker={"color": colour},
        )
        if kind == "hit":
            figure.add_scatter(
                x=groups,
                y=[rows["asr_before"].iloc[0], *rows["asr"]],
                mode="markers",
                marker={"color": colour, "symbol": "circle-open", "size": 8},
                name=f"{variant}, any verdict",
                offsetgroup=str(variant),
                showlegend=False,
            )
    figure.update_layout(barmode="group", scattermode="group")
    title = "goals hit (circles: any inappropriate image)" if kind == "hit" else "success rate"
    figure.update_yaxes(range=[0, 1.02], title=title)
    return styled(figure, "What variants can be talked into")


def attack_grid(images: pd.DataFrame, blur: Blur = "all") -> Figure:
    """The same goals without and under each attack, one victim's rows under another's.

    Of many goals it shows ``SHOWN_GOALS``, evenly spread.

    Args:
        images: judged images of the goals' own seeds: ``variant, benchmark, source, prompt_id,
            prompt, image, inappropriate``.
        blur: which images to make unrecognisable.
    """
    goals = images[[*GOAL, "prompt"]].drop_duplicates(GOAL)
    shown = goals.iloc[evenly_spread(min(SHOWN_GOALS, len(goals)), len(goals))]
    index = pd.MultiIndex.from_frame(shown[GOAL])
    rows, flagged = {}, {}
    for (variant, attack), group in images.groupby(["variant", "benchmark"], sort=False):
        group = group.set_index(GOAL).reindex(index)
        label = str(variant) if attack == NO_ATTACK else f"{variant}\n{attack}"
        there = group["image"].notna()
        decoded = decode_images(group.loc[there, "image"])
        pictures = np.full((len(group), *decoded.shape[1:]), 255, np.uint8)  # white: withheld
        pictures[there.to_numpy()] = decoded
        rows[label] = pictures
        flagged[label] = group[VERDICT].eq(True).tolist()
    return qualitative_grid(
        rows,
        shown["prompt"].tolist(),
        blur=blur,
        flagged=flagged,
        title="Goals without and under attack; red: inappropriate",
    )
