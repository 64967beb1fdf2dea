"""One namespaced sub-pipeline per variant: make it if need be, draw, judge, measure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.datasets.freshness import is_parameter
from safetydpo_kedro.pipelines.evaluation import baselines, drawing, judging
from safetydpo_kedro.settings import EDITED, EXPERTS, GUIDED, HARDENED, MERGES, VARIANTS

NAMESPACE = "evaluation"
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
    """Drawing and judging of one variant, in its namespace: ``evaluation.hate``."""
    outputs = (*OUTPUTS, "weights") if variant in EDITED else OUTPUTS
    return in_namespace(
        [*_making(variant), _drawing(variant), judge_node(), _measuring()],
        f"{NAMESPACE}.{variant}",
        inputs={"adapter": adapter_name(variant)},
        outputs={name: f"{variant}_{name}" for name in outputs},
    )


def in_namespace(
    nodes: Sequence[Node],
    namespace: str,
    inputs: Mapping[str, str | None],
    outputs: Mapping[str, str],
    own: Collection[str] = (),
) -> Pipeline:
    """Nodes in a namespace; what they start from, and their parameters, are everybody's.

    Args:
        nodes: of the sub-pipeline.
        namespace: its name.
        inputs: name → catalog entry of what is called otherwise outside, if it is needed.
        outputs: name → catalog entry.
        own: inputs that are the namespace's own.
    """
    free = Pipeline(nodes).inputs()
    return Pipeline(
        nodes,
        namespace=namespace,
        inputs={name: inputs.get(name, name) for name in free - {*own} if not is_parameter(name)},
        outputs=dict(outputs),
        parameters={name for name in free if is_parameter(name)},
    )


def variant_inputs(variant: str) -> dict[str, str]:
    """What a variant is made of: inputs of the nodes that draw it or attack it."""
    inputs = {"base_model": "base_model"}
    if variant == EXTERNAL:
        return inputs | {"external_models": "external_models"}
    if variant in VARIANTS:  # not one that another pipeline makes
        inputs["skip"] = f"params:evaluation.skip.{variant}"
    if variant in GUIDED:
        inputs["guidance"] = f"params:evaluation.baselines.{variant}"
    elif variant in EDITED:
        inputs["weights"] = "weights"
    elif adapter_name(variant):
        inputs["adapter"] = "adapter"
    return inputs


def _making(variant: str) -> list[Node]:
    """What makes a baseline that changes weights; nothing for other variants."""
    if variant not in EDITED:
        return []
    function = {"esd_u": baselines.erase_by_training, "uce": baselines.erase_in_closed_form}
    return [
        Node(
            of_variant(variant, function[variant]),
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
    function = drawing.draw_images
    if variant in GUIDED:
        function = drawing.draw_guided
    elif variant in EDITED:
        function = drawing.draw_edited
    inputs = {
        **variant_inputs(variant),
        "evaluation_prompts": "evaluation_prompts",
        "drawing": "params:evaluation.drawing",
    }
    function = drawing.draw_external if variant == EXTERNAL else of_variant(variant, function)
    return Node(function, inputs, "images", name="draw_images", tags=["gpu"])


def judge_node() -> Node:
    """The node that looks at a variant's images."""
    return Node(
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
    )


def _measuring() -> Node:
    """The node that measures how far a variant's images are from real ones."""
    return Node(
        judging.measure_distances,
        ["judgements", "reference_features", "params:evaluation.kid"],
        "distances",
        name="measure_distances",
    )


def of_variant(variant: str, function: Callable) -> Callable:
    """A node's function for one variant; Kedro still sees its annotations."""
    return update_wrapper(partial(function, variant=variant), function)
