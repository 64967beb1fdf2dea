"""Expert → attacked on its training pairs → trained again with what was found → compared."""

from __future__ import annotations

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.datasets.freshness import is_parameter
from safetydpo_kedro.pipelines.adversarial.pipeline import transferable_node
from safetydpo_kedro.pipelines.adversarial.variants import (
    TRANSFERABLE,
    create_attack_pipeline,
    search_node,
)
from safetydpo_kedro.pipelines.evaluation.variants import adapter_name, create_variant_pipeline
from safetydpo_kedro.pipelines.expert_training.nodes import train_safety_expert
from safetydpo_kedro.pipelines.hardening import nodes
from safetydpo_kedro.settings import ALL_SINGLE, HARDENED

COMPARED = ("base", ALL_SINGLE, HARDENED)


def create_search_pipeline() -> Pipeline:
    """Adversarial prompts against the expert, for unsafe prompts that it was trained on."""
    search = Pipeline([search_node(ALL_SINGLE)])
    renamed = {"goals": "hardening_goals", "adapter": adapter_name(ALL_SINGLE)}
    free = search.inputs()
    against_expert = Pipeline(
        search,
        namespace=HARDENED,
        inputs={name: renamed.get(name, name) for name in free if not is_parameter(name)},
        outputs={"prompts": "hardening_prompts"},
        parameters={name for name in free if is_parameter(name)},
    )
    goals = Node(
        nodes.draw_training_goals,
        {
            "base_model": "base_model",
            "train_pairs": "train_pairs",
            "parameters": "params:hardening.goals",
            "drawing": "params:evaluation.drawing",
        },
        "hardening_goals",
        name="draw_training_goals",
        tags=["gpu"],
    )
    without_victim = transferable_node(
        "hardening_goals", "hardening_transferable_prompts", "search_transferable_for_training"
    )
    return Pipeline([goals, without_victim]) + against_expert


def create_training_pipeline() -> Pipeline:
    """The expert for all categories as ever, but on more pairs."""
    train = partial(train_safety_expert, name=HARDENED)
    return Pipeline(
        [
            Node(
                nodes.add_adversarial_pairs,
                {
                    "base_model": "base_model",
                    "train_pairs": "train_pairs",
                    "latent_cache": "latent_cache",
                    "transferable": "hardening_transferable_prompts",
                    "prompts": "hardening_prompts",
                    "drawing": "params:evaluation.drawing",
                },
                ["hardening_pairs", "hardening_cache", "hardening_reference_scores"],
                name="add_adversarial_pairs",
                tags=["gpu"],
            ),
            Node(
                update_wrapper(train, train_safety_expert),
                {
                    "model": "base_model",
                    "train_pairs": "hardening_pairs",
                    "latent_cache": "hardening_cache",
                    "preservation_cache": "preservation_cache",
                    "reference_scores": "hardening_reference_scores",
                    "foundation": f"{HARDENED}.foundation",
                    "categories": f"params:{ALL_SINGLE}.categories",
                    "noise": "params:noise",
                    "parameters": f"params:{ALL_SINGLE}.expert_training",
                },
                [
                    f"{HARDENED}_expert",
                    f"{HARDENED}_training_history",
                    f"{HARDENED}_validation_images",
                ],
                name="train_hardened_expert",
                tags=["gpu"],
            ),
        ]
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
            "transferable": TRANSFERABLE,
            **tables,
        },
        ["hardening_table", "hardening_table_markdown", "hardening_attack_success"],
        name="compare_hardened",
    )
    training = create_search_pipeline() + create_training_pipeline()
    looked_at = create_variant_pipeline(HARDENED) + create_attack_pipeline(HARDENED)
    return training + looked_at + Pipeline([compare])
