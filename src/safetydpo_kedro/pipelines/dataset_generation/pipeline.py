"""Concepts → prompt pairs → leak-free split → images of both prompts → latent cache."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.dataset_generation import nodes


def create_pipeline(**kwargs) -> Pipeline:
    """CoProV2-like data for the model that is to be aligned."""
    return Pipeline(
        [
            Node(
                nodes.write_prompt_pairs,
                ["concepts", "params:dataset_generation.prompt_writing"],
                "prompt_pairs",
                name="write_prompt_pairs",
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
                nodes.judge_image_pairs,
                ["image_pairs", "judge_clip", "q16_prompts", "params:evaluation.judges"],
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
                nodes.plot_pairs,
                ["image_pairs", "pair_scores", "params:dataset_generation.contact_sheet"],
                "pair_contact_sheet",
                name="plot_pairs",
            ),
        ]
    )
