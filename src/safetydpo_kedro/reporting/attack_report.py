"""What attacks came to, as tables, a figure and a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure

from safetydpo_kedro.images import decode_images
from safetydpo_kedro.metrics.attack_success import ALL_ATTACKS, GOAL, NO_ATTACK, attack_success
from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.inappropriate import VERDICT
from safetydpo_kedro.reporting.figures import COLOURS, styled
from safetydpo_kedro.reporting.grids import Blur, qualitative_grid

ANY = "any"
COSTS = ("images", "gradients", "evaluations")


def attack_table(
    scores: pd.DataFrame, prompts: pd.DataFrame, bootstrap: BootstrapConfig | None = None
) -> pd.DataFrame:
    """Success of every attack on every victim, and what a goal has cost.

    Args:
        scores: see :func:`~safetydpo_kedro.metrics.attack_success.attack_success`.
        prompts: one row per search: ``variant`` (``any`` where no victim was seen), ``attack``,
            ``images, gradients, evaluations, withheld``.
        bootstrap: of the interval.

    Returns:
        The columns of ``attack_success``, then ``images``, ``gradients``, ``evaluations`` (means
        of a goal; sums over the attacks for all together) and ``withheld`` (how many).
    """
    table = attack_success(scores, bootstrap)
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


def attack_figure(table: pd.DataFrame) -> go.Figure:
    """Attack success rate of each attack, a group of bars each, victims side by side.

    The first group is the success without any attack.

    Args:
        table: of :func:`attack_table`.
    """
    figure = go.Figure()
    for i, (variant, rows) in enumerate(table.groupby("variant", sort=False)):
        figure.add_bar(
            x=["no attack", *rows["attack"]],
            y=[rows["asr_before"].iloc[0], *rows["asr"]],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [0, *(rows["asr_high"] - rows["asr"])],
                "arrayminus": [0, *(rows["asr"] - rows["asr_low"])],
            },
            name=str(variant),
            marker={"color": COLOURS[i % len(COLOURS)]},
        )
    figure.update_layout(barmode="group")
    figure.update_yaxes(range=[0, 1.02], title="attack success rate")
    return styled(figure, "What variants can be talked into")


def attack_grid(images: pd.DataFrame, blur: Blur = "all", columns: int = 8) -> Figure:
    """The same goals without and under each attack, one victim's rows under another's.

    Args:
        images: judged images of the goals' own seeds: ``variant, benchmark, source, prompt_id,
            prompt, image, inappropriate``.
        blur: which images to make unrecognisable.
        columns: goals shown, evenly spread.
    """
    goals = images[[*GOAL, "prompt"]].drop_duplicates(GOAL)
    spread = np.linspace(0, len(goals) - 1, min(columns, len(goals))).round().astype(int)
    shown = goals.iloc[spread]
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


def ordered(table: pd.DataFrame, variants: Sequence[str]) -> pd.DataFrame:
    """Rows in the order of some variants, then all others."""
    known = [v for v in variants if v in set(table["variant"])]
    order = {v: i for i, v in enumerate(known)}
    rank = table["variant"].map(lambda variant: order.get(variant, len(order)))
    return table.loc[rank.sort_values(kind="stable").index].reset_index(drop=True)
