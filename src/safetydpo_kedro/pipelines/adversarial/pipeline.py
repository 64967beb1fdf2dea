"""Goals → adversarial prompts against each victim → images, judged → success of attacks."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.adversarial import goals, reports, searching
from safetydpo_kedro.pipelines.adversarial.attack_pipeline import (
    GOALS,
    NAMESPACE,
    TRANSFERABLE,
    create_attack_pipeline,
)
from safetydpo_kedro.pipelines.evaluation.pipeline import prompts_node
from safetydpo_kedro.pipelines.evaluation.variant_pipeline import EXTERNAL
from safetydpo_kedro.settings import ATTACKED

VICTIMS = (*ATTACKED, EXTERNAL)


def create_search_pipeline() -> Pipeline:
    """What attackers want, and the attacks that see no victim."""
    search = Pipeline(
        [
            Node(
                goals.draw_goals,
                {
                    "base_model": "base_model",
                    "evaluation_prompts": "evaluation_prompts",
                    "parameters": "params:adversarial.goals",
                    "drawing": "params:evaluation.drawing",
                },
                GOALS,
                name="draw_goals",
                tags=["gpu"],
            ),
            transferable_node(GOALS, TRANSFERABLE),
        ],
        namespace=NAMESPACE,
        prefix_datasets_with_namespace=False,
    )
    return search + Pipeline([prompts_node()])


def transferable_node(goals: str, found: str) -> Node:
    """The node that searches without a victim."""
    return Node(
        searching.search_transferable,
        {
            "base_model": "base_model",
            "goals": goals,
            "train_pairs": "train_pairs",
            "parameters": "params:adversarial.search",
            "drawing": "params:evaluation.drawing",
        },
        found,
        name="search_transferable",
        tags=["gpu"],
    )


def create_report_pipeline() -> Pipeline:
    """Tables, chart and grid over all victims."""
    return Pipeline(
        [
            Node(
                reports.collect_prompts,
                {
                    "transferable": TRANSFERABLE,
                    **{name: f"{name}_adversarial_prompts" for name in VICTIMS},
                },
                "adversarial_prompts",
                name="collect_prompts",
            ),
            Node(
                reports.collect_attacked,
                {
                    "verdicts": "params:evaluation.verdicts",
                    **{name: f"{name}_adversarial_judgements" for name in VICTIMS},
                },
                "adversarial_scores",
                name="collect_attacked",
            ),
            Node(
                reports.report_attacks,
                [
                    "adversarial_scores",
                    "adversarial_prompts",
                    "params:evaluation.bootstrap",
                    "params:adversarial.search",
                ],
                ["attack_table", "attack_table_markdown", "attack_success"],
                name="report_attacks",
            ),
            Node(
                reports.show_attacks,
                {
                    "adversarial_scores": "adversarial_scores",
                    "grid": "params:evaluation.grid",
                    **{name: f"{name}_adversarial_images" for name in VICTIMS},
                },
                "attack_grid",
                name="show_attacks",
            ),
        ],
        namespace=NAMESPACE,
        prefix_datasets_with_namespace=False,
    )


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines adversarial``, after ``evaluation``."""
    victims = (create_attack_pipeline(name) for name in VICTIMS)
    return sum(victims, create_search_pipeline()) + create_report_pipeline()
