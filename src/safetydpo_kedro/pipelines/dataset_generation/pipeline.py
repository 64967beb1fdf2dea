"""Concepts → prompt pairs → leak-free split → images of both prompts → latent cache."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.dataset_generation import nodes


def create_pipeline(**kwargs) -> Pipeline:
    """CoProV2-like data for the model that is to be aligned."""
    return Pipeline(
        [
            Node(
                nodes.expand_concepts,
                [
                    "concepts",
                    "prompt_templates",
                    "language_model",
                    "params:dataset_generation.concepts",
                ],
                "expanded_concepts",
                name="expand_concepts",
            ),
            Node(
                nodes.write_prompts,
                [
                    "expanded_concepts",
                    "imported_pairs",
                    "prompt_templates",
                    "language_model",
                    "params:dataset_generation.prompt_writing",
                ],
                ["written_pairs", "rejected_prompts"],
                name="write_prompts",
            ),
            Node(
                nodes.measure_pairs,
                ["written_pairs", "judge_clip"],
                "prompt_pairs",
                name="measure_pairs",
            ),
            Node(
                nodes.split_prompt_pairs,
                ["prompt_pairs", "params:dataset_generation.pair_split"],
                ["train_pairs", "test_prompts"],
                name="split_prompt_pairs",
            ),
            Node(
                nodes.split_neutral_prompts,
                ["neutral_prompts", "params:dataset_generation.neutral_split"],
                ["preservation_prompts", "neutral_test_prompts"],
                name="split_neutral_prompts",
            ),
            Node(
                nodes.draw_image_pairs,
                ["base_model", "train_pairs", "params:dataset_generation.drawing"],
                "image_pairs",
                tags=["gpu"],
                name="draw_image_pairs",
            ),
            Node(
                nodes.draw_preservation_images,
                ["base_model", "preservation_prompts", "params:dataset_generation.drawing"],
                "preservation_images",
                tags=["gpu"],
                name="draw_preservation_images",
            ),
            Node(
                nodes.cache_latents,
                ["base_model", "image_pairs", "params:dataset_generation.drawing"],
                "latent_cache",
                tags=["gpu"],
                name="cache_latents",
            ),
            Node(
                nodes.cache_preservation,
                ["base_model", "preservation_images", "params:dataset_generation.drawing"],
                "preservation_cache",
                tags=["gpu"],
                name="cache_preservation",
            ),
            Node(
                nodes.score_reference,
                [
                    "base_model",
                    "latent_cache",
                    "params:noise",
                    "params:dataset_generation.drawing",
                ],
                "reference_scores",
                tags=["gpu"],
                name="score_reference",
            ),
            Node(
                nodes.judge_image_pairs,
                [
                    "image_pairs",
                    "judge_clip",
                    "q16_prompts",
                    "params:evaluation.judges",
                    "params:evaluation.verdicts",
                ],
                "pair_scores",
                name="judge_image_pairs",
            ),
            Node(
                nodes.report_dataset,
                ["prompt_pairs", "train_pairs", "test_prompts", "pair_scores"],
                "dataset_report",
                name="report_dataset",
            ),
            Node(
                nodes.write_dataset_card,
                [
                    "written_pairs",
                    "prompt_pairs",
                    "rejected_prompts",
                    "prompt_templates",
                    "language_model",
                    "params:dataset_generation.concepts",
                    "params:dataset_generation.prompt_writing",
                ],
                "dataset_card",
                name="write_dataset_card",
            ),
            Node(
                nodes.plot_pairs,
                ["image_pairs", "pair_scores", "params:dataset_generation.contact_sheet"],
                "pair_contact_sheet",
                name="plot_pairs",
            ),
        ],
        namespace="dataset_generation",
        prefix_datasets_with_namespace=False,
    )
