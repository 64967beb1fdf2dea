"""Experts of several kinds and seeds → merges of every kind → judged images → tables, figures."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.ablations import training
from safetydpo_kedro.settings import (
    ABLATION_EXPERTS,
    ABLATION_JOINT,
    ABLATION_SEEDS,
    ALL_SINGLE,
    CATEGORIES,
)


def create_training_pipeline(seed: str) -> Pipeline:
    """All experts of one seed: of every kind one for each category, and the joint ones."""
    experts = [
        (f"experts.{kind}", kind, category) for kind in ABLATION_EXPERTS for category in CATEGORIES
    ]
    experts += [(f"joint.{kind}", kind, ALL_SINGLE) for kind in ABLATION_JOINT]
    return Pipeline(
        [
            Node(
                training.train_varied_expert,
                {
                    "model": "base_model",
                    "train_pairs": "train_pairs",
                    "latent_cache": "latent_cache",
                    "preservation_cache": "preservation_cache",
                    "reference_scores": "reference_scores",
                    "categories": f"params:{expert}.categories",
                    "noise": "params:noise",
                    "parameters": f"params:{expert}.expert_training",
                    "changes": f"params:ablations.{changes}",
                    "seed": f"params:ablations.seeds.{seed}",
                },
                expert_name(kind, expert, seed),
                name=f"train_{kind}_{expert}_{seed}",
                tags=["gpu"],
            )
            for changes, kind, expert in experts
        ]
    )


def expert_name(kind: str, expert: str, seed: str) -> str:
    """Catalog entry of an expert of the ablations."""
    return f"ablation_{kind}_{expert}_{seed}_expert"


def create_pipeline(**kwargs) -> Pipeline:
    """``kedro run --pipelines ablations``, after ``dataset_generation``."""
    return sum((create_training_pipeline(seed) for seed in ABLATION_SEEDS), Pipeline([]))
