"""What a model card is made of, and whether its parts belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from safetydpo_kedro.reporting.findings import MEASURES
from safetydpo_kedro.reporting.paper_table import HIGHER, LOWER, SAFETY

# Measures on harmful benchmarks. There a checker ought not to find what was asked for.
HARM = SAFETY | {
    "concept_accuracy": ("the harmful concept is drawn", LOWER, ".3f"),
    "mate_accuracy": ("its harmless counterpart is drawn", HIGHER, ".3f"),
    "background_accuracy": ("the rest is drawn as asked for", HIGHER, ".3f"),
}


@dataclass(frozen=True)
class CardContent:
    """What the card is made of.

    Attributes:
        name: of the model.
        variant: its name in the tables.
        license: of the adapter, as the hub spells it; None if there is none to state.
        base_model: id on the hub of the model that the adapter belongs to; None if it is not there.
        weight_name: file name of the adapter.
        weights_sha256: digest of the adapter that was to be measured, as ``variants`` has it.
        adapter_metadata: pairs from the adapter's file header; values may be JSON.
        benchmark_table: measures by variant and benchmark, with rows of the base model.
        category_table: IP by variant, benchmark and category.
        variants: ``variant, weights_sha256, images_sha256`` and any others.
        harmful: benchmarks on which a low IP matters.
        benign: benchmarks that show quality.
        sampling: ``steps`` and ``guidance_scale`` that the images were drawn with.
        confidence: coverage of the intervals of IP, in (0, 1).
        provenance: nested mapping: judges with versions and hashes, parameters, packages.
        expert_metadata: for a merge, expert → the same pairs of that expert.
        strength: of the file, as a multiple of the ``ΔW`` that was measured.
    """

    name: str
    variant: str
    license: str | None
    base_model: str | None
    weight_name: str
    weights_sha256: str
    adapter_metadata: Mapping[str, str]
    benchmark_table: pd.DataFrame
    category_table: pd.DataFrame
    variants: pd.DataFrame
    harmful: Sequence[str]
    benign: Sequence[str]
    sampling: Mapping[str, Any]
    confidence: float
    provenance: Mapping[str, Any]
    expert_metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    strength: float = 1.0


def check(content: CardContent) -> None:
    """Refuse tables of another variant or of other weights.

    Raises:
        ValueError: see :func:`~safetydpo_kedro.reporting.model_card.model_card`.
    """
    for name in ("benchmark_table", "category_table", "variants"):
        found = getattr(content, name)["variant"].unique().tolist()
        if content.variant not in found:
            raise ValueError(f"model card: {name} lacks '{content.variant}'; it has {found}")
    measured = rows_of(content.variants, content.variant)["weights_sha256"].iloc[0]
    if measured != content.weights_sha256:
        raise ValueError(
            f"model card: the evaluation measured '{content.variant}' with weights {measured}, the "
            f"adapter has {content.weights_sha256}; run the pipeline evaluation again"
        )
    drawn = rows_of(content.benchmark_table, content.variant)["benchmark"].tolist()
    if not set(drawn) & set(content.harmful):
        raise ValueError(
            f"model card: '{content.variant}' drew none of the harmful benchmarks "
            f"{list(content.harmful)}, only {drawn}; a card states what is left of the harm"
        )


def rows_of(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Rows of one variant."""
    return table[table["variant"] == variant]


def networks_of(content: CardContent) -> dict[str, str]:
    """Column of a measured value → the network that it was computed with, as far as is known."""
    networks = {}
    for column, part in (("fid", "distances"), ("kid", "distances"), ("clip_score", "clip_score")):
        name = content.provenance.get(part, {}).get("name")
        if name and column in content.benchmark_table:
            networks[column] = name
    return networks


def measures(content: CardContent, benchmark: str) -> dict[str, tuple[str, str, str]]:
    """Measures that say something on a benchmark: images of harmful prompts ought not to fit."""
    if benchmark in content.harmful:
        return HARM
    return MEASURES if benchmark in content.benign else SAFETY | MEASURES
