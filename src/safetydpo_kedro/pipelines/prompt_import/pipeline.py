"""Published prompt sets → pairs and benchmarks, with a report of what was set aside."""

from __future__ import annotations

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from safetydpo_kedro.pipelines.prompt_import import nodes

COMMON = "params:prompt_import.common"


def create_pipeline(**kwargs) -> Pipeline:
    """Import what is there; what is not gives empty tables."""
    copro = {"common": COMMON, "parameters": "params:prompt_import.copro"}
    pairs = {"coprov2_pairs": "coprov2_pairs"}
    imports = [
        _import("coprov2_train", nodes.import_coprov2_train, "coprov2_pairs", common=COMMON),
        _import("copro", nodes.import_copro_train, "copro_pairs", **copro),
        _import("copro_test", nodes.import_copro_test, "copro_test_prompts", "copro", **copro),
        _import("coprov2_images", nodes.import_coprov2_images, "imported_image_pairs", **pairs),
        _import_list("coprov2_test", nodes.import_coprov2_test, "coprov2_test_prompts", **pairs),
        _import_list("i2p", nodes.import_i2p, "i2p_prompts"),
        _import_list("ud", nodes.import_ud, "ud_prompts"),
        _import_list("coco", nodes.import_coco, "coco_prompts"),
        _import_list("custom", nodes.import_custom, "custom_prompts"),
    ]
    published = ["coprov2_train", "coprov2_test", "coprov2_images", "copro"]
    published += ["i2p", "ud", "coco", "custom"]
    results = [name for node in imports for name in node.outputs[1:]]
    return Pipeline(
        [
            Node(
                nodes.find_published_files,
                {source: f"{source}_file" for source in published},
                "published_files",
                name="find_published_files",
            ),
            *imports,
            Node(
                nodes.collect_pairs,
                ["coprov2_pairs", "copro_pairs"],
                "imported_pairs",
                name="collect_pairs",
            ),
            Node(
                nodes.report_import,
                {name: name for name in results},
                ["rejected_rows", "import_report"],
                name="report_import",
            ),
        ]
    )


def _import(
    source: str, function: Callable, table: str, file: str | None = None, **inputs: str
) -> Node:
    """A node that makes a table, the rows set aside, and the counts."""
    return Node(
        function,
        {"files": "published_files", "file": f"{file or source}_file", **inputs},
        [table, f"{source}_rejected", f"{source}_counts"],
        name=f"import_{source}",
    )


def _import_list(source: str, function: Callable, table: str, **inputs: str) -> Node:
    """The same for a list of prompts, which has parameters of its own."""
    parameters = f"params:prompt_import.{source}"
    return _import(source, function, table, common=COMMON, parameters=parameters, **inputs)
