"""The card of a data set of prompt pairs: where they come from, in numbers and without texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from safetydpo_kedro.parameters import ConceptParameters, PromptWritingParameters
from safetydpo_kedro.prompts.llm_writer import LanguageModelWriter
from safetydpo_kedro.prompts.quality import QUALITY_COLUMNS
from safetydpo_kedro.prompts.templates import PLACEHOLDERS, PromptTemplates
from safetydpo_kedro.reporting.markdown import code, escaped, fenced
from safetydpo_kedro.reporting.tables import to_markdown

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
INTRODUCTION = (
    "Pairs of an unsafe prompt and its closest safe counterpart, made to teach a text-to-image "
    "model to refuse. This card has counts and no prompts."
)
EXCLUSION = (
    "One rule is always on and has no switch: whatever brings minors together with sexual content "
    "is excluded. Its text is neither stored nor shown. Excluded here: {count}."
)


def dataset_card(
    written_pairs: pd.DataFrame,
    prompt_pairs: pd.DataFrame,
    rejected: pd.DataFrame,
    templates: PromptTemplates,
    model: Mapping[str, Any],
    concepts: ConceptParameters,
    writing: PromptWritingParameters,
) -> str:
    """Describe a data set in Markdown.

    Args:
        written_pairs: ``category, concept, source``, one row per pair.
        prompt_pairs: the same pairs with the columns of quality.
        rejected: ``category, reason, source``, one row per rejected prompt.
        templates: what a language model was asked, if one was.
        model: its identity.
        concepts: parameters that may have had it propose concepts.
        writing: parameters that say who wrote.
    """
    excluded = int((rejected["reason"] == "excluded").sum())
    authors = set(written_pairs["source"]) | set(rejected["source"])
    asks_model = LanguageModelWriter.source in authors or concepts.per_category is not None
    sections = {
        "Pairs": to_markdown(_by_category(written_pairs)),
        "Sources": "\n".join(_sources(concepts, writing, model if asks_model else None)) + "\n",
        "Rejected": _rejected(rejected),
        "Exclusion": EXCLUSION.format(count=excluded) + "\n",
        "Closeness of the prompts of a pair": to_markdown(quantiles(prompt_pairs)),
    }
    if asks_model:
        title = f"Prompt templates, version {escaped(str(templates.version))}"
        sections[title] = "\n".join(_quoted(templates))
    body = "\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# Dataset card\n\n{INTRODUCTION}\n\n{body}"


def quantiles(prompt_pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per measure of quality, one column per quantile, and the mean."""
    values = prompt_pairs[QUALITY_COLUMNS].astype(float)
    table = values.quantile(list(QUANTILES)).T
    table.columns = [f"{share:.0%}" for share in QUANTILES]
    return table.assign(mean=values.mean()).rename_axis("measure").reset_index()


def _by_category(written_pairs: pd.DataFrame) -> pd.DataFrame:
    """Concepts, and pairs of every source, by category; the last row is the total."""
    groups = written_pairs.groupby("category")
    table = pd.crosstab(written_pairs["category"], written_pairs["source"])
    table.insert(0, "concepts", groups["concept"].nunique())
    table["pairs"] = groups.size()
    table = table.loc[written_pairs["category"].unique()]
    table.loc["total"] = table.sum()
    return table.rename_axis("category").rename_axis(None, axis=1).reset_index()


def _sources(
    concepts: ConceptParameters, writing: PromptWritingParameters, model: Mapping[str, Any] | None
) -> Iterator[str]:
    """Who wrote, and how."""
    yield f"- writer: {escaped(writing.writer or 'none')}"
    yield f"- arguments of the writer: {_inline(writing.arguments)}"
    yield f"- pairs per concept, at most: {writing.pairs_per_concept}; seed: {writing.seed}"
    yield f"- imported pairs: {'used' if writing.imported else 'not used'}"
    proposed = concepts.per_category or "none, those of the list are used"
    yield f"- concepts per category that a language model fills up to: {proposed}"
    if model is not None:
        yield f"- language model and sampling: {_inline(model)}"


def _rejected(rejected: pd.DataFrame) -> str:
    """Counts by source and reason."""
    if rejected.empty:
        return "Nothing was rejected.\n"
    counts = rejected.groupby(["source", "reason"]).size().rename("count").reset_index()
    return to_markdown(counts)


def _quoted(templates: PromptTemplates) -> Iterator[str]:
    """The templates as they are in their file."""
    for name in PLACEHOLDERS:
        template = getattr(templates, name)
        yield f"### {name}\n"
        for role in ("system", "user"):
            yield f"{role}:\n\n{fenced(getattr(template, role), 'text')}"


def _inline(value: Any) -> str:
    return code(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))
