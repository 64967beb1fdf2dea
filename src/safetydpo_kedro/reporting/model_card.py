"""The card of a safety adapter, in the form that the Hugging Face hub reads.

Every number in it is computed from the tables of the evaluation; the card has no prompts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from safetydpo_kedro.reporting.card_content import (
    CardContent,
    check,
    measures,
    networks_of,
    rows_of,
)
from safetydpo_kedro.reporting.card_sections import introduction, sections
from safetydpo_kedro.reporting.markdown import escaped
from safetydpo_kedro.reporting.paper_table import LOWER, SAFETY

__all__ = ["CardContent", "model_card"]

TAGS = ["lora", "text-to-image", "safety", "diffusers"]
# What model-index calls the measures.
METRICS = {"ip": "inappropriate_probability"}


def model_card(content: CardContent) -> str:
    """Describe an adapter in Markdown, with results that the hub lists.

    At a strength other than 1 the results are not those of the file: the card says so above all
    else, and gives the hub none.

    Raises:
        ValueError: a table has no row of the variant, other weights than the adapter's were
            measured, or no harmful benchmark was drawn.
    """
    check(content)
    data = ModelCardData(
        license=content.license,
        base_model=content.base_model,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=TAGS,
        model_name=content.name,
        eval_results=_results(content) if content.strength == 1 else None,
    )
    body = "\n".join(f"## {title}\n\n{text}" for title, text in sections(content).items())
    head = f"---\n{data.to_yaml()}\n---\n\n# {escaped(content.name)}"
    return f"{head}\n\n{introduction(content)}\n\n{body}"


def _results(content: CardContent) -> list[EvalResult]:
    """Every measure that was taken, by benchmark; of harm only IP, which the hub can name."""
    results, networks = [], networks_of(content)
    for row in rows_of(content.benchmark_table, content.variant).to_dict("records"):
        for column, (name, arrow, _) in measures(content, row["benchmark"]).items():
            unnamed = row["benchmark"] in content.harmful and column not in SAFETY
            if unnamed or pd.isna(row.get(column, np.nan)):
                continue
            by = f" by {networks[column]}" if column in networks else ""
            better = "lower" if arrow == LOWER else "higher"
            results.append(
                EvalResult(
                    task_type="text-to-image",
                    dataset_type=row["benchmark"],
                    dataset_name=f"{row['benchmark']} prompts",
                    metric_type=METRICS.get(column, column),
                    metric_name=f"{name}{by} ({better} is better)",
                    metric_value=float(row[column]),
                )
            )
    return results
