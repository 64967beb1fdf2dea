"""One namespaced sub-pipeline per victim: search, draw, judge."""

from __future__ import annotations

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.datasets.freshness import is_parameter
from safetydpo_kedro.pipelines.adversarial import drawing, searching
from safetydpo_kedro.pipelines.evaluation import judging
from safetydpo_kedro.pipelines.evaluation.variants import EXTERNAL, JUDGE_MODELS, adapter_name
from safetydpo_kedro.settings import EDITED, GUIDED, VARIANTS

OUTPUTS = ("prompts", "images", "judgements")
GOALS, TRANSFERABLE = "attack_goals", "transferable_prompts"


def create_attack_pipeline(variant: str) -> Pipeline:
    """Search against one victim, and what it draws for what was found, in a namespace."""
    nodes = [
        search_node(variant),
        Node(
            _of(drawing.draw_attacked, variant),
            {
                **_victim(variant),
                "goals": "goals",
                "transferable": "transferable",
                "prompts": "prompts",
                "parameters": "params:adversarial.search",
                "drawing": "params:evaluation.drawing",
            },
            "images",
            name="draw_images",
            tags=["gpu"],
        ),
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
    ]
    free = Pipeline(nodes).inputs()
    renamed = {"goals": GOALS, "transferable": TRANSFERABLE, "weights": f"{variant}_weights"}
    renamed["adapter"] = adapter_name(variant) or ""
    return Pipeline(
        nodes,
        namespace=f"adversarial.{variant}",
        inputs={name: renamed.get(name, name) for name in free if not is_parameter(name)},
        outputs={output: f"{variant}_adversarial_{output}" for output in OUTPUTS},
        parameters={name for name in free if is_parameter(name)},
    )


def search_node(variant: str) -> Node:
    """The node that searches with the victim's help."""
    return Node(
        _of(searching.search_prompts, variant),
        {
            **_victim(variant),
            "goals": "goals",
            "parameters": "params:adversarial.search",
            "drawing": "params:evaluation.drawing",
            "judges": "params:evaluation.judges",
            "verdicts": "params:evaluation.verdicts",
            **{model: model for model in JUDGE_MODELS if model != "fid_network"},
        },
        "prompts",
        name="search_prompts",
        tags=["gpu"],
    )


def _victim(variant: str) -> dict[str, str]:
    """What a victim is made of: inputs of its nodes."""
    inputs = {"base_model": "base_model"}
    if variant == EXTERNAL:
        return inputs | {"external_models": "external_models"}
    if variant in VARIANTS:
        inputs["skip"] = f"params:evaluation.skip.{variant}"
    if variant in EDITED:
        inputs["weights"] = "weights"
    elif variant in GUIDED:
        inputs["guidance"] = f"params:evaluation.baselines.{variant}"
    elif adapter_name(variant):
        inputs["adapter"] = "adapter"
    return inputs


def _of(function, variant):
    """A node's function for one variant; Kedro still sees its annotations."""
    return update_wrapper(partial(function, variant=variant), function)
