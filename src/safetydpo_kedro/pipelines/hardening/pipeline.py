"""Expert → attacked on its training pairs → trained again with what was found → compared."""

from __future__ import annotations

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.adversarial.attack_pipeline import (
    TRANSFERABLE,
    create_attack_pipeline,
    search_node,
)
from safetydpo_kedro.pipelines.adversarial.pipeline import transferable_node
from safetydpo_kedro.pipelines.evaluation.variant_pipeline import (
    adapter_name,
    create_variant_pipeline,
    in_namespace,
)
from safetydpo_kedro.pipelines.expert_training.nodes import train_safety_expert
from safetydpo_kedro.pipelines.hardening import nodes
from safetydpo_kedro.settings import ALL_SINGLE, HARDENED

NAMESPACE = "hardening"
COMPARED = ("base", ALL_SINGLE, HARDENED)


def create_training_pipeline() -> Pipeline:
    """Attack the expert on training pairs; train it as ever, on what was found too."""
    train = update_wrapper(partial(train_safety_expert, name=HARDENED), train_safety_expert)
    steps = [
        Node(
            nodes.draw_training_goals,
            {
                "base_model": "base_model",
                "train_pairs": "train_pairs",
                "parameters": "params:hardening.goals",
                "drawing": "params:evaluation.drawing",
            },
            "goals",
            name="draw_goals",
            tags=["gpu"],
        ),
        transferable_node("goals", "transferable_prompts"),
        search_node(ALL_SINGLE),
        Node(
            nodes.add_adversarial_pairs,
            {
                "base_model": "base_model",
                "train_pairs": "train_pairs",
                "latent_cache": "latent_cache",
                "transferable": "transferable_prompts",
                "prompts": "prompts",
                "drawing": "params:evaluation.drawing",
            },
            ["pairs", "cache", "reference_scores"],
            name="add_adversarial_pairs",
            tags=["gpu"],
        ),
        Node(
            train,
            {
                "model": "base_model",
                "train_pairs": "pairs",
                "latent_cache": "cache",
                "preservation_cache": "preservation_cache",
                "reference_scores": "reference_scores",
                "foundation": "foundation",
                "categories": f"params:{ALL_SINGLE}.categories",
                "noise": "params:noise",
                "parameters": f"params:{ALL_SINGLE}.expert_training",
            },
            ["expert", "training_history", "validation_images"],
            name="train_expert",
            tags=["gpu"],
        ),
    ]
    made = ("goals", "transferable_prompts", "prompts", "pairs", "cache", "reference_scores")
    trained = ("expert", "training_history", "validation_images")
    return in_namespace(
        steps,
        NAMESPACE,
        inputs={"adapter": adapter_name(ALL_SINGLE)},
        outputs={
            **{name: f"{NAMESPACE}_{name}" for name in made},
            **{name: f"{HARDENED}_{name}" for name in trained},
        },
        own=("foundation",),  # there may be one for this expert alone
    )


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines hardening``, after ``evaluation`` and ``adversarial``."""
    tables = {}
    for variant in COMPARED:
        tables[f"{variant}__judgements"] = f"{variant}_judgements"
        tables[f"{variant}__attacked"] = f"{variant}_adversarial_judgements"
        tables[f"{variant}__prompts"] = f"{variant}_adversarial_prompts"
    compare = Node(
        nodes.compare_hardened,
        {
            "verdicts": "params:evaluation.verdicts",
            "bootstrap": "params:evaluation.bootstrap",
            "parameters": "params:adversarial.search",
            "transferable": TRANSFERABLE,
            **tables,
        },
        ["hardening_table", "hardening_table_markdown", "hardening_attack_success"],
        name="compare_hardened",  # in no namespace: between training and this, others look at it
    )
    looked_at = create_variant_pipeline(HARDENED) + create_attack_pipeline(HARDENED)
    return create_training_pipeline() + looked_at + Pipeline([compare])
