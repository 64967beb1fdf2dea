"""COCO captions as neutral prompts, from the annotations of the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.prompt_list import prompt_row
from safetydpo_kedro.prompts.importers.reading import is_unicode, json_row, read_json
from safetydpo_kedro.prompts.importers.schema import Intake, PromptRow, Reason, SourceRow

COLUMNS = {"prompt": "caption"}


def import_annotations(path: Path, concept: str, seed: int, intake: Intake) -> list[PromptRow]:
    """One caption of each image of ``captions_*.json``: the one with the lowest annotation id.

    Args:
        path: the JSON file.
        concept: of all captions.
        seed: of the image seeds.
        intake: names the benchmark, counts the images, and takes those that are not used; the
            line of one is the position of the annotation.

    Returns:
        Captions in the order of the image ids.

    Raises:
        ValueError: not JSON, or without ``images`` and ``annotations``.
    """
    content = read_json(path)
    images, annotations = (_entries(path, content, name) for name in ("images", "annotations"))
    chosen: dict[int, tuple[int, SourceRow]] = {}
    for number, entry in enumerate(annotations, start=1):
        image, identity = entry.get("image_id"), entry.get("id")
        row = json_row(path.name, number, entry, ["caption"])
        fault: Reason | None = None if row.values["caption"].strip() else "empty_prompt"
        if not isinstance(image, int) or not isinstance(identity, int):
            fault = "bad_number"
        if fault:
            intake.rows += 1
            intake.reject(row, "id" if fault == "bad_number" else "caption", fault)
        elif identity < chosen.get(image, (identity + 1,))[0]:
            chosen[image] = identity, row
    known = {entry["id"] for entry in images if isinstance(entry.get("id"), int)}
    prompts = []
    for image, (_, row) in sorted(chosen.items()):
        intake.rows += 1
        if image not in known:
            intake.reject(row, "image_id", "no_image")
        elif is_unicode(row, intake):
            values = {"prompt": row.values["caption"], "concept": concept}
            values["prompt_id"] = f"{image:012d}"
            prompts.append(prompt_row(row, values, COLUMNS, Categories([]), seed, intake))
    return [prompt for prompt in prompts if prompt is not None]


def _entries(path: Path, content: Any, name: str) -> list[dict[str, Any]]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} needs lists of objects 'images' and 'annotations', found {found}: "
            f"use captions_val2017.json or captions_train2017.json"
        )
    return entries
