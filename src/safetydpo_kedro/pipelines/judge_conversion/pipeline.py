"""Published pickles of judges → safetensors; two conversions that do not need each other."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.judge_conversion import nodes


def create_pipeline(**kwargs) -> Pipeline:
    """Convert Q16's prompts and the network of FID."""
    return Pipeline(
        [
            Node(
                nodes.convert_q16_prompts,
                "q16_pickle",
                ["q16_prompts", "q16_prompts_origin"],
                name=nodes.Q16_NODE,
            ),
            Node(
                nodes.convert_inception,
                "inception_pickle",
                "fid_network",
                name=nodes.INCEPTION_NODE,
            ),
        ]
    )
