"""Experts → activation profile → Co-Merge, with the plain mean beside it."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.merging import nodes
from safetydpo_kedro.settings import CATEGORIES

LINEAR = "params:merging.strategies.linear"
FITTED_CO_MERGE = "params:merging.strategies.fitted_co_merge"
CO_MERGE = "params:merging.strategies.co_merge"


def create_pipeline(**kwargs) -> Pipeline:
    """One LoRA of all category experts, by each merge strategy."""
    experts = {category: f"{category}_expert" for category in CATEGORIES}
    return Pipeline(
        [
            Node(
                nodes.record_activation_profile,
                {
                    "base_model": "base_model",
                    "latent_cache": "latent_cache",
                    "train_pairs": "train_pairs",
                    "preservation_cache": "preservation_cache",
                    "parameters": "params:merging.profile",
                    **experts,
                },
                "activation_profile_shards",
                name="record_activation_profile",
                tags=["gpu"],
            ),
            Node(
                nodes.add_up_activation_profile,
                "activation_profile_shards",
                "activation_profile",
                name="add_up_activation_profile",
            ),
            Node(
                nodes.summarise_ownership,
                ["activation_profile", CO_MERGE],
                [
                    "ownership_table",
                    "win_concentration",
                    "ownership_heatmap",
                    "win_share_heatmap",
                    "ownership_histogram",
                ],
                name="summarise_ownership",
            ),
            Node(
                nodes.merge_linear,
                {"parameters": LINEAR, **experts},
                "linear_merge",
                name="merge_linear",
            ),
            Node(
                nodes.merge_co_merge,
                {"activation_profile": "activation_profile", "parameters": CO_MERGE, **experts},
                "co_merge",
                name="merge_co_merge",
            ),
            Node(
                nodes.fit_merge_weights,
                {
                    "base_model": "base_model",
                    "latent_cache": "latent_cache",
                    "train_pairs": "train_pairs",
                    "preservation_cache": "preservation_cache",
                    "parameters": "params:merging.fitting",
                    **experts,
                },
                ["fitted_weights", "fitting_history", "fitting_curves"],
                name="fit_merge_weights",
                tags=["gpu"],
            ),
            Node(
                nodes.merge_fitted_co_merge,
                {"fitted_weights": "fitted_weights", "parameters": FITTED_CO_MERGE, **experts},
                "fitted_co_merge",
                name="merge_fitted_co_merge",
            ),
            Node(
                nodes.report_merges,
                {
                    "linear": "linear_merge",
                    "co_merge": "co_merge",
                    "fitted_co_merge": "fitted_co_merge",
                },
                "merge_report",
                name="report_merges",
            ),
        ],
        namespace="merging",
        prefix_datasets_with_namespace=False,
    )
