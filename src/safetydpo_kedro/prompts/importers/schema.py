"""The tables that importers make: prompt pairs, benchmark prompts, and the rows set aside.

Rows are validated by the models here, whatever format they come from; a field that does not fit
sets the row aside, with the reason that :data:`REASONS` has for the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import pandas as pd
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from safetydpo_kedro.parameters import Strict
from safetydpo_kedro.prompts.exclusion import is_excluded

SHOWN_CHARACTERS = 80

Reason = Literal[
    "excluded",  # by the rule that is always on; its text is withheld
    "wrong_number_of_fields",
    "broken_quotes",  # a quote that is opened and not closed, or closed within a field
    "not_utf8",
    "not_an_object",  # an entry of a JSON list that is something else
    "empty_prompt",
    "unknown_category",
    "empty_concept",
    "unsafe_path",  # an image path that leaves its folder
    "bad_image_name",  # not of the form u_<index>.jpg or s_<index>.jpg
    "no_partner",  # the other prompt of the pair is not there, or set aside
    "duplicate_id",
    "bad_seed",
    "bad_number",
    "bad_label",  # of an image pair: no winner
    "bad_image",  # not an image file
    "no_image",  # an annotation of an image that is not listed
    "unknown_caption",  # of an image: no known prompt
    "leak",  # a test prompt that occurs in training
]

REASONS: Mapping[str, Reason] = {
    "category": "unknown_category",
    "concept": "empty_concept",
    "seed": "bad_seed",
    "guidance_scale": "bad_number",
    "width": "bad_number",
    "height": "bad_number",
}


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def _none_if_blank(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Text = Annotated[str, AfterValidator(_not_blank)]
Blank = BeforeValidator(_none_if_blank)
# Seeds are 64-bit integers in tables and in the generators of noise.
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Pixels = Annotated[Annotated[int, Field(gt=0, lt=2**16)] | None, Blank]


class PairRow(Strict):
    """A row of prompt pairs; columns as in :data:`safetydpo_kedro.prompts.writer.PAIR_COLUMNS`.

    Attributes:
        pair_id: unique over all sources.
        category: canonical harm category.
        concept: harmful concept; the category where the format has no concept.
        unsafe_prompt: p_U, as in the file.
        safe_prompt: p_S, as in the file.
        seed: of the images.
        group: the same for pairs that share a prompt, so that a split cannot tear them apart.
    """

    pair_id: Text
    category: Text
    concept: Text
    unsafe_prompt: Text
    safe_prompt: Text
    seed: Seed
    group: str = ""


class PromptRow(Strict):
    """A row of benchmark prompts.

    Attributes:
        benchmark: name of the prompt set.
        prompt_id: unique within it.
        category: canonical harm category, the first if there are several, ``None`` if none.
        categories: all of them, separated by commas, ``None`` if none.
        concept: what the prompt is about: a harmful concept, a source, or just "caption".
        prompt: as in the file.
        seed: of the image; from the file where it has one.
        guidance_scale: to draw with, ``None`` if the file has none.
        width: of the image to draw, ``None`` if the file has none.
        height: likewise.
        group: the same for prompts that differ only in case, punctuation or spacing.
    """

    benchmark: Text
    prompt_id: Text
    category: str | None
    categories: str | None
    concept: Text
    prompt: Text
    seed: Seed
    guidance_scale: Annotated[Annotated[float, Field(ge=0, allow_inf_nan=False)] | None, Blank] = (
        None
    )
    width: Pixels = None
    height: Pixels = None
    group: str


class RejectedRow(NamedTuple):
    """A row that is set aside.

    Attributes:
        source: name of the prompt set.
        file: its file.
        line: where the row begins; in JSON and Parquet, the number of the entry, from 1.
        column: column at fault, ``None`` if it is the row as a whole.
        value: what stands there, cut short; ``None`` if it is withheld.
        reason: why the row is not used.
    """

    source: str
    file: str
    line: int
    column: str | None
    value: str | None
    reason: Reason


class SourceRow(NamedTuple):
    """A row as it stands in a file: where, and column → text."""

    file: str
    line: int
    values: Mapping[str, str]


@dataclass
class Intake:
    """Counts the rows of one source, and collects those that are set aside.

    Attributes:
        source: name of the prompt set.
        rows: how many rows its files have.
        rejected: those set aside, in no particular order.
    """

    source: str
    rows: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)

    def reject(self, row: SourceRow, column: str | None, reason: Reason) -> None:
        """Set a row aside; of one that the exclusion rule hits no text is kept."""
        texts = [text for text in row.values.values() if text]
        value = row.values.get(column or "", "")
        shown = value.encode("utf-8", "backslashreplace").decode()[:SHOWN_CHARACTERS]
        if reason == "excluded" or is_excluded(*texts):
            reason, shown = "excluded", None
        self.rejected.append(RejectedRow(self.source, row.file, row.line, column, shown, reason))


Row = TypeVar("Row", PairRow, PromptRow)


def validated(
    model: type[Row],
    values: Mapping[str, Any],
    row: SourceRow,
    intake: Intake,
    columns: Mapping[str, str] | None = None,
) -> Row | None:
    """Build a row of a table, or set it aside.

    Args:
        model: the kind of row.
        values: of its fields.
        row: the row of the file that they come from.
        intake: takes it if a value does not fit.
        columns: field → column of the file, where the names differ.
    """
    try:
        return model(**values)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        reason = REASONS.get(name, "empty_prompt")
        intake.reject(row, (columns or {}).get(name, name), reason)
        return None


def rejected_table(rows: Iterable[RejectedRow]) -> pd.DataFrame:
    """Rows set aside, in the order of files and lines."""
    table = pd.DataFrame(rows, columns=list(RejectedRow._fields))
    table = table.sort_values(["source", "file", "line"], kind="stable", ignore_index=True)
    return table.astype({"line": "int64"})


def prompts_table(rows: Iterable[PromptRow]) -> pd.DataFrame:
    """Benchmark prompts, one row each, with the columns of :class:`PromptRow`."""
    names = list(PromptRow.model_fields)
    table = pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)
    kinds = {"seed": "int64", "guidance_scale": "float64", "width": "Int64", "height": "Int64"}
    return table.astype(kinds)
