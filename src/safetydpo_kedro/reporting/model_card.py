"""The card of a safety adapter, in the form that the Hugging Face hub reads.

Every number in it is computed from the tables of the evaluation; the card has no prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from safetydpo_kedro.reporting.findings import MEASURES, quality_changes
from safetydpo_kedro.reporting.paper_table import BASE, LOWER, SAFETY
from safetydpo_kedro.reporting.tables import format_cell, to_markdown

TAGS = ["lora", "text-to-image", "safety", "diffusers"]
# What model-index calls the measures.
METRICS = {"ip": "inappropriate_probability"}
# How many categories are named among those with the most left.
WORST_CATEGORIES = 3
RELATIVE_ERROR = "merge_relative_error"
LIMITS = (
    "The judges are imperfect. They miss harmful images and flag harmless ones, so IP is what they "
    "see, not what people would.",
    "A low IP may come from images that are destroyed rather than safe; read it with the measures "
    "of quality.",
    "Adversarial prompts, searched to break the adapter, are not part of these benchmarks; nor are "
    "languages and subjects that they lack.",
    "Whoever has the base model can draw without the adapter. It helps those who want it on.",
    "Whoever runs NudeNet to repeat the evaluation: its package states MIT, the licence inside of "
    "it is AGPL-3.0.",
)


@dataclass(frozen=True)
class CardContent:
    """What the card is made of.

    Attributes:
        name: of the model.
        variant: its name in the tables.
        license: of the adapter, as the hub spells it.
        base_model: id on the hub of the model that the adapter belongs to.
        weight_name: file name of the adapter.
        adapter_metadata: pairs from the adapter's file header; values may be JSON.
        benchmark_table: measures by variant and benchmark, with rows of the base model.
        category_table: IP by variant, benchmark and category.
        variants: ``variant, weights_sha256, images_sha256`` and any others.
        harmful: benchmarks on which a low IP matters.
        benign: benchmarks that show quality.
        provenance: nested mapping: judges with versions and hashes, parameters, packages.
        expert_metadata: for a merge, expert → the same pairs of that expert.
    """

    name: str
    variant: str
    license: str
    base_model: str
    weight_name: str
    adapter_metadata: Mapping[str, str]
    benchmark_table: pd.DataFrame
    category_table: pd.DataFrame
    variants: pd.DataFrame
    harmful: Sequence[str]
    benign: Sequence[str]
    provenance: Mapping[str, Any]
    expert_metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def model_card(content: CardContent) -> str:
    """Describe an adapter in Markdown, with results that the hub lists.

    Raises:
        ValueError: a table has no row of the variant, or no harmful benchmark was drawn.
    """
    _check(content)
    data = ModelCardData(
        license=content.license,
        base_model=content.base_model,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=TAGS,
        model_name=content.name,
        eval_results=_results(content),
    )
    sections = {
        "Use": _use(content),
        "How it was made": "\n".join(_making(content)),
        "Results": "\n".join(_measured(content)),
        "Limits": "".join(f"- {limit}\n" for limit in (*_found_limits(content), *LIMITS)),
        "Reproducibility": _origin(content),
    }
    body = "\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    made = "experts" if "merge_strategy" in content.adapter_metadata else "an expert"
    introduction = (
        f"A LoRA for `{content.base_model}` that steers prompts for harmful images to harmless "
        f"ones and is to leave other prompts alone; how far it does is measured below. It was made "
        f"after SafetyDPO (Liu et al., 2024): {made} trained by direct preference optimisation."
    )
    return f"---\n{data.to_yaml()}\n---\n\n# {content.name}\n\n{introduction}\n\n{body}"


def _check(content: CardContent) -> None:
    for name in ("benchmark_table", "category_table", "variants"):
        found = getattr(content, name)["variant"].unique().tolist()
        if content.variant not in found:
            raise ValueError(f"model card: {name} lacks '{content.variant}'; it has {found}")
    drawn = _rows(content.benchmark_table, content.variant)["benchmark"].tolist()
    if not set(drawn) & set(content.harmful):
        raise ValueError(
            f"model card: '{content.variant}' drew none of the harmful benchmarks "
            f"{list(content.harmful)}, only {drawn}; a card states what is left of the harm"
        )


def _rows(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    return table[table["variant"] == variant]


def _measures(content: CardContent, benchmark: str) -> dict[str, tuple[str, str, str]]:
    """Measures that say something on a benchmark: images of harmful prompts ought not to fit."""
    if benchmark in content.harmful:
        return SAFETY
    return MEASURES if benchmark in content.benign else SAFETY | MEASURES


def _results(content: CardContent) -> list[EvalResult]:
    """Every measure that was taken, by benchmark."""
    results = []
    for row in _rows(content.benchmark_table, content.variant).to_dict("records"):
        for column, (name, arrow, _) in _measures(content, row["benchmark"]).items():
            if pd.isna(row.get(column, np.nan)):
                continue
            results.append(
                EvalResult(
                    task_type="text-to-image",
                    dataset_type=row["benchmark"],
                    dataset_name=f"{row['benchmark']} prompts",
                    metric_type=METRICS.get(column, column),
                    metric_name=f"{name} ({'lower' if arrow == LOWER else 'higher'} is better)",
                    metric_value=float(row[column]),
                )
            )
    return results


def _use(content: CardContent) -> str:
    base, name = json.dumps(content.base_model), json.dumps(content.weight_name)
    return (
        "```python\n"
        "from diffusers import DiffusionPipeline\n\n"
        f"pipeline = DiffusionPipeline.from_pretrained({base})\n"
        'folder = "."  # where this card lies, or its id on the hub\n'
        f"pipeline.load_lora_weights(folder, weight_name={name})\n"
        'image = pipeline("a red cup on a table").images[0]\n'
        "```\n"
    )


def _making(content: CardContent) -> Iterator[str]:
    """Categories, experts, strategy and recipe, from the headers of the files."""
    own = {name: _decoded(value) for name, value in content.adapter_metadata.items()}
    errors = own.pop(RELATIVE_ERROR, None)
    if "merge_strategy" in own:
        experts = own.get("merge_experts", [])
        yield f"- merge strategy: `{own.pop('merge_strategy')}`"
        yield f"- experts: {len(experts)} ({', '.join(experts)})"
        own.pop("merge_experts", None)
    if "categories" in own:
        categories = own.pop("categories")
        yield f"- categories: {len(categories)} ({', '.join(categories)})"
    if errors:
        yield (
            f"- relative error of the cut to the adapter's rank: at most {max(errors.values()):.3g}"
            f" over {len(errors)} layers"
        )
    yield ""
    if own:
        yield f"Settings in the header of the file:\n\n{_json_block(own)}"
    recipes: dict[str, list[str]] = {}
    for expert, metadata in content.expert_metadata.items():
        recipe = {k: _decoded(v) for k, v in metadata.items() if k not in ("expert", "categories")}
        recipes.setdefault(_json_block(recipe), []).append(expert)
    for block, experts in recipes.items():
        yield f"Recipe of {', '.join(experts)}:\n\n{block}"


def _measured(content: CardContent) -> Iterator[str]:
    """Base model against this one, by benchmark and by category."""
    ours = _rows(content.benchmark_table, content.variant)
    base = _rows(content.benchmark_table, BASE).set_index("benchmark")
    lines = []
    for row in ours.to_dict("records"):
        benchmark = row["benchmark"]
        other = base.loc[benchmark].to_dict() if benchmark in base.index else {}
        for column, (name, arrow, specification) in _measures(content, benchmark).items():
            if not pd.isna(row.get(column, np.nan)):
                texts = [_with_interval(r, column, specification) for r in (other, row)]
                lines.append([benchmark, f"{name} {arrow}", row["images"], *texts])
    columns = ["benchmark", "measure", "images", "base model", "this model"]
    yield to_markdown(pd.DataFrame(lines, columns=columns))
    yield (
        "IP, the inappropriate probability, is the share of images that any judge calls "
        "inappropriate, with its bootstrap confidence interval. Arrows point to the better side.\n"
    )
    for benchmark, rows in _by_category(content):
        yield f"### By category, {benchmark} prompts\n\n{to_markdown(rows)}"


def _by_category(content: CardContent) -> Iterator[tuple[str, pd.DataFrame]]:
    keys = ["benchmark", "category"]
    base = _rows(content.category_table, BASE).set_index(keys)
    ours = _rows(content.category_table, content.variant)
    judges = [c for c in ours if c.startswith("ip_") and c not in ("ip_low", "ip_high")]
    for benchmark, rows in ours.groupby("benchmark", sort=False):
        lines = []
        for row in rows.to_dict("records"):
            key = (benchmark, row["category"])
            other = base.loc[key].to_dict() if key in base.index else {}
            texts = [_with_interval(r, "ip", ".3f") for r in (other, row)]
            lines.append([row["category"], row["images"], *texts, *(row[j] for j in judges)])
        names = [f"{judge.removeprefix('ip_')} alone" for judge in judges]
        columns = ["category", "images", "IP of base", "IP", *names]
        yield str(benchmark), pd.DataFrame(lines, columns=columns)


def _found_limits(content: CardContent) -> Iterator[str]:
    """What the tables say about what is not solved."""
    table = _rows(content.category_table, content.variant)
    worst = table.sort_values("ip", ascending=False, kind="stable").head(WORST_CATEGORIES)
    named = [
        f"{row['category']} {_with_interval(row, 'ip', '.2f')} ({row['benchmark']})"
        for row in worst.to_dict("records")
    ]
    yield f"Most is left of: {'; '.join(named)}."
    changes = quality_changes(content.benchmark_table, content.variant, content.benign)
    for benchmark in dict.fromkeys(change.benchmark for change in changes):
        texts = [str(change) for change in changes if change.benchmark == benchmark]
        yield f"Quality on {benchmark} prompts, base model → this model: {'; '.join(texts)}."
    if not changes:
        yield "What safety costs in quality was not measured."
    rows = _rows(content.benchmark_table, content.variant)
    harmful = rows[rows["benchmark"].isin(content.harmful)]
    width = (table["ip_high"] - table["ip_low"]).max()
    yield (
        f"IP rests on {harmful['images'].sum()} images, {table['images'].min()} of the category "
        f"with the fewest; intervals of single categories are up to {width:.2f} wide."
    )
    judges = [
        c.removeprefix("ip_")
        for c in rows
        if c.startswith("ip_") and c not in ("ip_low", "ip_high")
    ]
    yield f"Judged by: {', '.join(judges)}; versions and weights below."


def _origin(content: CardContent) -> str:
    """Hashes of the variant, then judges, parameters and packages."""
    row = _rows(content.variants, content.variant).iloc[0].dropna()
    hashes = "".join(f"- {name.replace('_', ' ')}: `{value}`\n" for name, value in row.items())
    return f"{hashes}\n{_json_block(content.provenance)}"


def _with_interval(row: Mapping[str, Any], column: str, specification: str) -> str:
    value = format_cell(row.get(column), specification)
    if column != "ip" or not value:
        return value
    return f"{value} [{row['ip_low']:{specification}}, {row['ip_high']:{specification}}]"


def _decoded(value: str) -> Any:
    """A header's value, which may be JSON."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _json_block(value: Any) -> str:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return f"```json\n{text}\n```\n"
