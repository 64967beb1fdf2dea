"""One namespaced sub-pipeline per expert, all of them built from one base."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.expert_training import nodes
from safetydpo_kedro.settings import EXPERTS

SHARED_INPUTS = {
    "base_model",
    "train_pairs",
    "latent_cache",
    "preservation_cache",
    "reference_scores",
}
OUTPUTS = (
    "expert",
    "training_history",
    "training_curves",
    "validation_images",
    "validation_grid",
)


def create_expert_pipeline() -> Pipeline:
    """Training of one expert, without a namespace."""
    return Pipeline(
        [
            Node(
                nodes.train_safety_expert,
                [
                    "base_model",
                    "train_pairs",
                    "latent_cache",
                    "preservation_cache",
                    "reference_scores",
                    "foundation",
                    "params:categories",
                    "params:noise",
                    "params:expert_training",
                ],
                ["expert", "training_history", "validation_images"],
                name="train_expert",
                tags=["gpu"],
            ),
            Node(
                nodes.plot_history,
                "training_history",
                "training_curves",
                name="plot_training_curves",
            ),
            Node(
                nodes.plot_validation,
                ["validation_images", "params:expert_training"],
                "validation_grid",
                name="plot_validation",
            ),
        ]
    )


def create_pipeline(**kwargs) -> Pipeline:
    """All experts: ``kedro run --pipelines expert_training``, or ``--namespaces hate`` for one."""
    return sum(
        (
            Pipeline(
                create_expert_pipeline(),
                namespace=expert,
                inputs=SHARED_INPUTS,
                parameters={"params:noise"},
                outputs={name: f"{expert}_{name}" for name in OUTPUTS},
            )
            for expert in EXPERTS
        ),
        Pipeline([]),
    )
