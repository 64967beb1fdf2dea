"""Benchmarks as lists of prompts: I2P, UD, CoProV2's test file, COCO lists, and your own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.coprov2 import leaves_folder
from safetydpo_kedro.prompts.importers.reading import read_rows
from safetydpo_kedro.prompts.importers.schema import Intake, PromptRow, SourceRow, validated
from safetydpo_kedro.prompts.split import normalise
from safetydpo_kedro.prompts.writer import image_seed


class PromptColumns(Strict):
    """Which column of a file holds what; null: none does."""

    prompt: str = Field("prompt", min_length=1, description="the prompt")
    prompt_id: str | None = Field(None, description="unique; null: the rows are numbered")
    categories: str | None = Field(None, description="one, or several separated by commas")
    concept: str | None = Field(None, description="the concept that it is about")
    seed: str | None = Field(None, description="seed to draw it with; null: one is given to it")
    guidance_scale: str | None = Field(None, description="classifier-free guidance to draw with")
    width: str | None = Field(None, description="of the published image, in pixels")
    height: str | None = Field(None, description="of the published image, in pixels")
    image: str | None = Field(None, description="path of an image; checked, and not imported")


class PromptListParameters(Strict):
    """How a list of prompts is read."""

    columns: PromptColumns = PromptColumns()
    optional: tuple[str, ...] = Field((), description="columns that a file may lack")
    concept: str | None = Field(
        None, description="concept of rows that name none; null: the category, or else the file"
    )

    def required(self) -> list[str]:
        """Columns that a file must have."""
        named = [name for name in self.columns.model_dump().values() if name]
        return [name for name in named if name not in self.optional]


def import_prompts(
    path: Path,
    parameters: PromptListParameters,
    categories: Categories,
    seed: int,
    intake: Intake,
    trained: Collection[str] = frozenset(),
) -> list[PromptRow]:
    """Read a list of prompts.

    Args:
        path: a CSV file, a text file with one prompt per line, or a folder of such files.
        parameters: which column holds what.
        categories: those that are known.
        seed: of the image seeds that the file does not have.
        intake: names the benchmark, and takes the rows that are not used.
        trained: prompts that must not be among them, because they occur in training.

    Raises:
        ValueError: a required column is missing.
    """
    columns = {field: name for field, name in parameters.columns.model_dump().items() if name}
    names: set[str] = set()
    prompts = []
    for row in read_rows(path, parameters.required(), intake):
        values = {field: row.values.get(name, "") for field, name in columns.items()}
        values["prompt_id"] = values.get("prompt_id", "").strip() or f"{intake.rows - 1:06d}"
        values["concept"] = values.get("concept", "") or parameters.concept or ""
        prompt = prompt_row(row, values, columns, categories, seed, intake)
        if prompt is None:
            continue
        if prompt.prompt_id in names:
            intake.reject(row, columns.get("prompt_id", "prompt"), "duplicate_id")
        elif prompt.prompt in trained:
            intake.reject(row, columns["prompt"], "leak")
        else:
            names.add(prompt.prompt_id)
            prompts.append(prompt)
    return prompts


def prompt_row(
    row: SourceRow,
    values: Mapping[str, Any],
    columns: Mapping[str, str],
    categories: Categories,
    seed: int,
    intake: Intake,
) -> PromptRow | None:
    """A benchmark prompt; sets the row aside if it is excluded or does not fit.

    Args:
        row: of the file.
        values: field → text, with ``prompt_id`` unique in the file.
        columns: field → column of the file.
        categories: those that are known.
        seed: of the image seed, if the row has none.
        intake: names the benchmark, and takes the row if it is not used.
    """
    fields = {"categories": "", **values}
    spelled = fields.pop("categories")
    if is_excluded(fields["prompt"], fields["concept"], category=spelled):
        intake.reject(row, columns["prompt"], "excluded")
        return None
    known = categories.find_all(spelled)
    if None in known:
        intake.reject(row, columns["categories"], "unknown_category")
        return None
    if leaves_folder(fields.pop("image", "")):
        intake.reject(row, columns["image"], "unsafe_path")
        return None
    name = f"{intake.source}-{fields['prompt_id']}"
    fields |= {
        "benchmark": intake.source,
        "prompt_id": name,
        "category": known[0] if known else None,
        "categories": ",".join(dict.fromkeys(known)) or None,
        "concept": fields["concept"].strip() or (known[0] if known else Path(row.file).stem),
        "seed": str(fields.get("seed", "")).strip() or image_seed(seed, name),
        "group": prompt_group(fields["prompt"]),
    }
    return validated(PromptRow, fields, row, intake, columns)


def prompt_group(prompt: str) -> str:
    """The same for prompts that differ only in case, punctuation or spacing."""
    return hashlib.blake2b(normalise(prompt).encode(), digest_size=8).hexdigest()
