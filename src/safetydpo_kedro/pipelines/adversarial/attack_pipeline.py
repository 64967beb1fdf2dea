"""One namespaced sub-pipeline per victim: search, draw, judge."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.adversarial import drawing, searching
from safetydpo_kedro.pipelines.evaluation.variant_pipeline import (
    JUDGE_MODELS,
    adapter_name,
    in_namespace,
    judge_node,
    of_variant,
    variant_inputs,
)

NAMESPACE = "adversarial"
OUTPUTS = ("prompts", "images", "judgements")
GOALS, TRANSFERABLE = "attack_goals", "transferable_prompts"


def create_attack_pipeline(variant: str) -> Pipeline:
    """Search against one victim, and what it draws for what was found, in a namespace."""
    nodes = [
        search_node(variant),
        Node(
            of_variant(variant, drawing.draw_attacked),
            {
                **variant_inputs(variant),
                "goals": "goals",
                "transferable": "transferable",
                "prompts": "prompts",
                "parameters": "params:adversarial.search",
                "drawing": "params:evaluation.drawing",
            },
            "images",
            name="draw_images",
            tags=["gpu"],
        ),
        judge_node(),
    ]
    return in_namespace(
        nodes,
        f"{NAMESPACE}.{variant}",
        inputs={
            "goals": GOALS,
            "transferable": TRANSFERABLE,
            "weights": f"{variant}_weights",
            "adapter": adapter_name(variant),
        },
        outputs={output: f"{variant}_adversarial_{output}" for output in OUTPUTS},
    )


def search_node(variant: str) -> Node:
    """The node that searches with the victim's help."""
    return Node(
        of_variant(variant, searching.search_prompts),
        {
            **variant_inputs(variant),
            "goals": "goals",
            "parameters": "params:adversarial.search",
            "drawing": "params:evaluation.drawing",
            "judges": "params:evaluation.judges",
            "verdicts": "params:evaluation.verdicts",
            **{model: model for model in JUDGE_MODELS if model != "fid_network"},
        },
        "prompts",
        name="search_prompts",
        tags=["gpu"],
    )
