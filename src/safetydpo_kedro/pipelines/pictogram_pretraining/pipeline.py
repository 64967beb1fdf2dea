"""Sprites → tokenizer → CLIP → autoencoder → UNet, with judges and checks beside them."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.pictogram_pretraining import nodes


def create_pipeline(**kwargs) -> Pipeline:
    """Pretraining of the pictogram world; not part of the default run."""
    parameters = "params:pictogram_pretraining"
    return Pipeline(
        [
            Node(nodes.list_concepts, None, ["concepts", "neutral_prompts"], name="list_concepts"),
            Node(
                nodes.draw_reference_images,
                parameters,
                "reference_images",
                name="draw_reference_images",
            ),
            Node(
                nodes.train_tokenizer,
                parameters,
                "pictogram_tokenizer",
                name="train_tokenizer",
            ),
            Node(
                nodes.train_clip,
                ["pictogram_tokenizer", parameters],
                "pictogram_clip",
                name="train_clip",
            ),
            Node(
                nodes.train_autoencoder,
                parameters,
                "pictogram_autoencoder",
                name="train_autoencoder",
            ),
            Node(
                nodes.train_unet,
                ["pictogram_tokenizer", "pictogram_clip", "pictogram_autoencoder", parameters],
                "pictogram_unet",
                name="train_unet",
            ),
            Node(
                nodes.assemble_base_model,
                [
                    "pictogram_tokenizer",
                    "pictogram_clip",
                    "pictogram_autoencoder",
                    "pictogram_unet",
                ],
                "base_model",
                name="assemble_base_model",
            ),
            Node(
                nodes.train_judge_clip,
                parameters,
                "judge_clip",
                name="train_judge_clip",
            ),
            Node(
                nodes.tune_q16_prompts,
                ["judge_clip", parameters],
                "q16_prompts",
                name="tune_q16_prompts",
            ),
            Node(
                nodes.train_classifier,
                parameters,
                "pictogram_classifier",
                name="train_classifier",
            ),
            Node(
                nodes.check_world,
                ["base_model", "pictogram_classifier", "judge_clip", "q16_prompts", parameters],
                "world_report",
                name="check_world",
            ),
        ]
    )
