"""One namespaced sub-pipeline per variant: make it if need be, draw, judge, measure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.datasets.freshness import is_parameter
from safetydpo_kedro.pipelines.evaluation import baselines, drawing, judging
from safetydpo_kedro.settings import EDITED, EXPERTS, GUIDED, HARDENED, MERGES, VARIANTS

EXTERNAL = "external"
JUDGE_MODELS = {
    name: name for name in ("judge_clip", "q16_prompts", "score_clip", "extra_judge", "fid_network")
}
OUTPUTS = ("images", "judgements", "distances")


def adapter_name(variant: str) -> str | None:
    """Catalog entry of a variant's LoRA, None for one that has none."""
    if variant in (*EXPERTS, HARDENED):
        return f"{variant}_expert"
    if variant in MERGES:
        return variant if variant.endswith("_merge") else f"{variant}_merge"
    return None


def create_variant_pipeline(variant: str) -> Pipeline:
    """Drawing and judging of one variant, in its namespace."""
    nodes = [*_making(variant), _drawing(variant), *_judging()]
    free = Pipeline(nodes).inputs()
    outputs = (*OUTPUTS, "weights") if variant in EDITED else OUTPUTS
    adapter = adapter_name(variant)
    return Pipeline(
        nodes,
        namespace=variant,
        inputs={
            name: adapter if name == "adapter" else name for name in free if not is_parameter(name)
        },
        outputs={name: f"{variant}_{name}" for name in outputs},
        parameters={name for name in free if is_parameter(name)},
    )


def _making(variant: str) -> list[Node]:
    """What makes a baseline that changes weights; nothing for other variants."""
    if variant not in EDITED:
        return []
    function = {"esd_u": baselines.erase_by_training, "uce": baselines.erase_in_closed_form}
    return [
        Node(
            _of(variant, function[variant]),
            {
                "base_model": "base_model",
                "concepts": "baseline_concepts",
                "skip": f"params:evaluation.skip.{variant}",
                "config": f"params:evaluation.baselines.{variant}",
            },
            "weights",
            name=f"make_{variant}",
            tags=["gpu"],
        )
    ]


def _drawing(variant: str) -> Node:
    """The node that draws a variant."""
    inputs = {
        "base_model": "base_model",
        "evaluation_prompts": "evaluation_prompts",
        "drawing": "params:evaluation.drawing",
    }
    if variant == EXTERNAL:
        inputs["external_models"] = "external_models"
        return Node(drawing.draw_external, inputs, "images", name="draw_images", tags=["gpu"])
    if variant in VARIANTS:  # not one that another pipeline makes
        inputs["skip"] = f"params:evaluation.skip.{variant}"
    function = drawing.draw_images
    if variant in GUIDED:
        function = drawing.draw_guided
        inputs["guidance"] = f"params:evaluation.baselines.{variant}"
    elif variant in EDITED:
        function = drawing.draw_edited
        inputs["weights"] = "weights"
    elif adapter_name(variant):
        inputs["adapter"] = "adapter"
    function = _of(variant, function)
    return Node(function, inputs, "images", name="draw_images", tags=["gpu"])


def _judging() -> list[Node]:
    """The nodes that look at a variant's images."""
    return [
        Node(
            judging.judge_images,
            {
                "images": "images",
                **JUDGE_MODELS,
                "judges": "params:evaluation.judges",
                "checker": "params:evaluation.checker",
            },
            "judgements",
            name="judge_images",
            tags=["gpu"],
        ),
        Node(
            judging.measure_distances,
            ["judgements", "reference_features", "params:evaluation.kid"],
            "distances",
            name="measure_distances",
        ),
    ]


def _of(variant: str, function: Callable) -> Callable:
    """A node's function for one variant; Kedro still sees its annotations."""
    return update_wrapper(partial(function, variant=variant), function)
