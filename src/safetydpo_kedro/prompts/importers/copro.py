"""CoPro of Latent Guard: JSON with lists of pairs, or a table with the same columns as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.prompt_list import prompt_row
from safetydpo_kedro.prompts.importers.reading import is_unicode, json_row, read_json, read_rows
from safetydpo_kedro.prompts.importers.schema import (
    Intake,
    PairRow,
    PromptRow,
    SourceRow,
    validated,
)
from safetydpo_kedro.prompts.writer import image_seed

COLUMNS = ("unsafe_prompt", "safe_prompt", "concept", "category")


def import_pairs(
    path: Path, sections: Sequence[str], categories: Categories, seed: int, intake: Intake
) -> list[PairRow]:
    """The pairs of some sections.

    Args:
        path: ``.json``, or ``.csv``, which has no sections.
        sections: names of lists in the JSON file, such as ``ID_train_data``.
        categories: those that are known.
        seed: of the image seeds.
        intake: takes the rows that are not used.

    Raises:
        ValueError: not JSON, or a section or a column is missing.
    """
    if path.suffix == ".json":
        rows = _json_rows(path, sections, intake)
    else:
        rows = (("csv", row) for row in read_rows(path, COLUMNS, intake))
    pairs = (_pair(section, row, categories, seed, intake) for section, row in rows)
    return [pair for pair in pairs if pair is not None]


def import_prompts(
    path: Path, sections: Sequence[str], categories: Categories, seed: int, intake: Intake
) -> list[PromptRow]:
    """The unsafe prompts of the sections for testing; see :func:`import_pairs`.

    A CSV file has no such sections.
    """
    if path.suffix != ".json":
        return []
    columns = {"prompt": "unsafe_prompt", "categories": "category", "concept": "concept"}
    prompts = []
    for section, row in _json_rows(path, sections, intake):
        values = {field: row.values[name] for field, name in columns.items()}
        values["prompt_id"] = f"{section}-{row.line:06d}"
        prompts.append(prompt_row(row, values, columns, categories, seed, intake))
    return [prompt for prompt in prompts if prompt is not None]


def _json_rows(
    path: Path, sections: Sequence[str], intake: Intake
) -> Iterator[tuple[str, SourceRow]]:
    content = read_json(path)
    found = sorted(content) if isinstance(content, dict) else [type(content).__name__]
    lists = {name: content[name] for name in sections if name in found}
    if len(lists) < len(sections) or not all(isinstance(value, list) for value in lists.values()):
        raise ValueError(
            f"{path}: CoPro needs lists {list(sections)}, found {found}; "
            f"download CoPro_v1.0.json again, or name its lists in `copro.sections`"
        )
    for section, entries in lists.items():
        objects = [entry for entry in entries if isinstance(entry, dict)]
        missing = [name for name in COLUMNS if not any(name in entry for entry in objects)]
        if missing and entries:
            keys = sorted({key for entry in objects for key in entry})
            raise ValueError(
                f"{path}, {section}: lacks {missing}; needs {list(COLUMNS)}, has {keys}"
            )
        for number, entry in enumerate(entries, start=1):
            intake.rows += 1
            row = json_row(f"{path.name}:{section}", number, entry, COLUMNS)
            if not isinstance(entry, dict):
                intake.reject(row, None, "not_an_object")
            elif is_unicode(row, intake):
                yield section, row


def _pair(
    section: str, row: SourceRow, categories: Categories, seed: int, intake: Intake
) -> PairRow | None:
    """The pair of one row."""
    category = categories.find(row.values["category"])
    if category is None:
        intake.reject(row, "category", "unknown_category")
        return None
    name = f"copro-{section}-{row.line:06d}"
    values = {
        **{column: row.values[column] for column in COLUMNS},
        "pair_id": name,
        "category": category,
        "seed": image_seed(seed, name),
    }
    if is_excluded(*(row.values[column] for column in COLUMNS)):
        intake.reject(row, "unsafe_prompt", "excluded")
        return None
    return validated(PairRow, values, row, intake)
