"""Nodes of ``adversarial`` that gather and report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from safetydpo_kedro.metrics.config import BootstrapConfig, VerdictsConfig
from safetydpo_kedro.pipelines.adversarial.parameters import AttacksParameters
from safetydpo_kedro.pipelines.evaluation.judging import collect_scores
from safetydpo_kedro.reporting.config import GridConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Grid
    from plotly.graph_objects import Figure
else:  # Kedro resolves the annotations when it starts
    Figure = Grid = object

SHARED = ["variant", "attack", "category", "concept", "goal", "prompt", "evaluation_seed"]


def collect_prompts(transferable: pd.DataFrame, **prompts: pd.DataFrame) -> pd.DataFrame:
    """All adversarial prompts, in a form that others can use.

    Columns are those that ``prompt_import`` reads too: to draw these prompts with another model,
    put the file where its ``custom`` list is.

    Args:
        transferable: found without a victim.
        prompts: victim → found against it.

    Returns:
        ``variant`` (``any`` where no victim was seen), ``attack, category, concept, goal, prompt,
        evaluation_seed``, and what the search did.
    """
    tables = [table for table in (transferable, *prompts.values()) if len(table)]
    if not tables:
        raise ValueError("adversarial.search.attacks leaves all attacks out: nothing was searched")
    table = pd.concat(tables, ignore_index=True).rename(columns={"seed": "evaluation_seed"})
    return table[[*SHARED, *table.columns.drop(SHARED)]]


def collect_attacked(verdicts: VerdictsConfig, **judgements: pd.DataFrame) -> pd.DataFrame:
    """Verdicts on the images of all victims, one row per image."""
    return collect_scores(verdicts, **judgements)


def report_attacks(
    adversarial_scores: pd.DataFrame,
    adversarial_prompts: pd.DataFrame,
    bootstrap: BootstrapConfig,
    parameters: AttacksParameters,
) -> tuple[pd.DataFrame, str, Figure]:
    """Success of every attack on every victim: table, Markdown, chart."""
    from safetydpo_kedro.reporting.attack_report import attack_figure, attack_table
    from safetydpo_kedro.reporting.tables import to_markdown

    table = attack_table(adversarial_scores, adversarial_prompts, bootstrap, parameters.aim)
    return table, to_markdown(table), attack_figure(table)


def show_attacks(
    adversarial_scores: pd.DataFrame, grid: GridConfig, **images: pd.DataFrame
) -> Grid:
    """A grid of goals without and under attack.

    Args:
        adversarial_scores: verdicts.
        grid: whether images are blurred.
        images: victim → its images.
    """
    from safetydpo_kedro.metrics.inappropriate import VERDICT
    from safetydpo_kedro.reporting.attack_report import attack_grid

    key = ["variant", "benchmark", "source", "prompt_id", "trial"]
    drawn = pd.concat([table for table in images.values() if len(table)], ignore_index=True)
    drawn = drawn[drawn["trial"] == 0]
    return attack_grid(drawn.merge(adversarial_scores[[*key, VERDICT]], on=key), grid.blur)
