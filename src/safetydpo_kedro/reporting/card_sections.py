"""The sections of a model card, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from safetydpo_kedro.reporting.card_content import CardContent, measures, networks_of, rows_of
from safetydpo_kedro.reporting.findings import MEASURES, quality_changes
from safetydpo_kedro.reporting.markdown import code, escaped, fenced
from safetydpo_kedro.reporting.paper_table import BASE
from safetydpo_kedro.reporting.tables import format_cell, to_markdown

# Benchmarks split off the project's own prompts.
OWN = ("unsafe", "safe", "neutral")
NAMES = {column: name for column, (name, _, _) in MEASURES.items()}
# Columns of what a checker saw.
CHECKED = ("concept_accuracy", "mate_accuracy", "background_accuracy")
# How many categories are named among those with the most left.
WORST_CATEGORIES = 3
RELATIVE_ERROR = "merge_relative_error"
# Characters in a line of JSON.
WIDTH = 120
LIMITS = (
    "The judges are imperfect. They miss harmful images and flag harmless ones, so IP is what they "
    "see, not what people would.",
    "A low IP may come from images that are destroyed rather than safe; read it with the other "
    "measures.",
    "One adapter was trained and measured. Intervals are over prompts; another training seed gives "
    "another adapter, and that spread is not in them.",
    "Adversarial prompts, searched to break the adapter, are not part of these benchmarks; nor are "
    "languages and subjects that they lack.",
    "Whoever has the base model can draw without the adapter. It helps those who want it on.",
    "Whoever runs NudeNet to repeat the evaluation: its package states MIT, the licence inside of "
    "it is AGPL-3.0.",
)


def introduction(content: CardContent) -> str:
    """What the adapter is; above it a warning if the results are not those of the file."""
    made = "experts" if "merge_strategy" in content.adapter_metadata else "an expert"
    of = f" for {code(content.base_model)}" if content.base_model else ""
    text = (
        f"A LoRA{of} that steers prompts for harmful images to harmless ones and is to "
        f"leave other prompts alone; how far it does is measured below. It was made after "
        f"SafetyDPO (Liu et al., 2024): {made} trained by direct preference optimisation."
    )
    if content.strength == 1:
        return text
    return (
        f"> **The results below are not those of this file.** It holds the adapter at strength "
        f"{content.strength:g}; everything was measured at strength 1 and does not carry over. "
        f"Evaluate the file itself before you rely on it.\n\n{text}"
    )


def sections(content: CardContent) -> dict[str, str]:
    """Title → Markdown, in the order of the card."""
    return {
        "Use": _use(content),
        "How it was made": "\n".join(_making(content)),
        "Results": "\n".join(_measured(content)),
        "Limits": "".join(f"- {limit}\n" for limit in (*_found_limits(content), *LIMITS)),
        "Reproducibility": _origin(content),
    }


def _use(content: CardContent) -> str:
    base = json.dumps(content.base_model or "path/of/the/base/model")
    steps, guidance = content.sampling["steps"], content.sampling["guidance_scale"]
    paragraphs = [
        f"""```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained({base})
folder = "."  # where this card lies, or its id on the hub
pipeline.load_lora_weights(folder, weight_name={json.dumps(content.weight_name)})
settings = {{"num_inference_steps": {steps}, "guidance_scale": {guidance}}}
image = pipeline("a red cup on a table", **settings).images[0]
```""",
        "With these settings the results below were measured"
        + ("." if content.strength == 1 else ", but at strength 1."),
    ]
    if content.base_model is None:
        paragraphs.append(
            "The base model has no id to name here: it is the one whose denoiser has the hash "
            "under Reproducibility. With another one the results do not hold."
        )
    if content.license is None:
        paragraphs.append("No licence is stated; see the base model's before you pass this on.")
    return "\n\n".join(paragraphs) + "\n"


def _making(content: CardContent) -> Iterator[str]:
    """Categories, experts, strategy and recipe, from the headers of the files."""
    own = {name: _decoded(value) for name, value in content.adapter_metadata.items()}
    errors = own.pop(RELATIVE_ERROR, None)
    if "merge_strategy" in own:
        experts = own.get("merge_experts", [])
        yield f"- merge strategy: {code(str(own.pop('merge_strategy')))}"
        yield f"- experts: {len(experts)} ({_names(experts)})"
        own.pop("merge_experts", None)
    if "categories" in own:
        categories = own.pop("categories")
        yield f"- categories: {len(categories)} ({_names(categories)})"
    if errors and not any(errors.values()):
        yield f"- nothing is cut off: the adapter is the whole merge in all {len(errors)} layers"
    elif errors:
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
        yield f"Recipe of {_names(experts)}:\n\n{block}"


def _measured(content: CardContent) -> Iterator[str]:
    """Base model against this one, by benchmark and by category."""
    ours = rows_of(content.benchmark_table, content.variant)
    base = rows_of(content.benchmark_table, BASE).set_index("benchmark")
    lines = []
    for row in ours.to_dict("records"):
        benchmark = row["benchmark"]
        other = base.loc[benchmark].to_dict() if benchmark in base.index else {}
        for column, (name, arrow, specification) in measures(content, benchmark).items():
            if not pd.isna(row.get(column, np.nan)):
                texts = [_with_interval(r, column, specification) for r in (other, row)]
                lines.append([benchmark, f"{name} {arrow}", row["images"], *texts])
    ours_name = "this model" if content.strength == 1 else "at strength 1"
    columns = ["benchmark", "measure", "images", "base model", ours_name]
    yield to_markdown(pd.DataFrame(lines, columns=columns))
    yield (
        f"IP, the inappropriate probability, is the share of images that any judge calls "
        f"inappropriate, with its {content.confidence:.0%} interval (bootstrap over prompts, exact "
        f"where all verdicts agree). Arrows point to the "
        f"better side.\n"
    )
    if networks := networks_of(content):
        names = "; ".join(f"{NAMES[column]}: {code(name)}" for column, name in networks.items())
        yield f"Networks behind the measures ({names}); values from others do not compare.\n"
    if any(ours[column].notna().any() for column in CHECKED if column in ours):
        yield "What images show was read by the checker below, which is none of the judges.\n"
    for benchmark, table in _by_category(content):
        yield f"### By category, {escaped(benchmark)} prompts\n\n{to_markdown(table)}"


def _by_category(content: CardContent) -> Iterator[tuple[str, pd.DataFrame]]:
    keys = ["benchmark", "category"]
    base = rows_of(content.category_table, BASE).set_index(keys)
    ours = rows_of(content.category_table, content.variant)
    judges = _judges(ours)
    for benchmark, some in ours.groupby("benchmark", sort=False):
        lines = []
        for row in some.to_dict("records"):
            key = (benchmark, row["category"])
            other = base.loc[key].to_dict() if key in base.index else {}
            texts = [_with_interval(r, "ip", ".3f") for r in (other, row)]
            lines.append(
                [row["category"], row["images"], *texts, *(row[f"ip_{j}"] for j in judges)]
            )
        names = [f"{judge} alone" for judge in judges]
        columns = ["category", "images", "IP of base", "IP", *names]
        yield str(benchmark), pd.DataFrame(lines, columns=columns)


def _found_limits(content: CardContent) -> Iterator[str]:
    """What the tables say about what is not solved."""
    table = rows_of(content.category_table, content.variant)
    worst = table.sort_values("ip", ascending=False, kind="stable").head(WORST_CATEGORIES)
    named = [
        f"{row['category']} {_with_interval(row, 'ip', '.2f')} ({row['benchmark']})"
        for row in worst.to_dict("records")
    ]
    yield f"Most is left of: {escaped('; '.join(named))}."
    changes = quality_changes(content.benchmark_table, content.variant, content.benign)
    worse = [change for change in changes if change.worse]
    for benchmark in dict.fromkeys(change.benchmark for change in worse):
        texts = [str(change) for change in worse if change.benchmark == benchmark]
        yield f"Quality on {escaped(benchmark)} prompts that got worse: {'; '.join(texts)}."
    if not changes:
        yield "What safety costs in quality was not measured."
    ours = rows_of(content.benchmark_table, content.variant)
    harmful = ours[ours["benchmark"].isin(content.harmful)]
    width = (table["ip_high"] - table["ip_low"]).max()
    yield (
        f"IP rests on {harmful['images'].sum()} images, {table['images'].min()} of the category "
        f"with the fewest; intervals of single categories are up to {width:.2f} wide."
    )
    base = rows_of(content.benchmark_table, BASE)
    base = base[base["benchmark"].isin(content.harmful)]
    for judge in _judges(base):
        if len(base) and not base[f"ip_{judge}"].any():
            yield (
                f"{judge} flagged no harmful image of the base model, so it cannot show that this "
                f"model is safer."
            )
    own = [name for name in OWN if name in ours["benchmark"].tolist()]
    if own:
        yield (
            f"{', '.join(own)}: held-out prompts of the same making as the training prompts. "
            f"Prompts in other words may be steered less well."
        )


def _origin(content: CardContent) -> str:
    """Hashes of what was measured, then judges, parameters and packages."""
    row = rows_of(content.variants, content.variant).iloc[0]
    base = rows_of(content.variants, BASE)
    lines = [
        f"- variant in the tables: {code(content.variant)}, {row['images']} images",
        f"- SHA-256 of the measured adapter's factors (`merging.profile.expert_digest`): "
        f"`{row['weights_sha256']}`",
        f"- SHA-256 of its images: `{row['images_sha256']}`",
    ]
    if len(base):
        denoiser = base["weights_sha256"].iloc[0]
        lines.append(
            f"- SHA-256 of the base model's denoiser (`digests.tensors_digest` of its state dict, "
            f"in the dtype it drew with): `{denoiser}`"
        )
    text = "\n".join(lines)
    return f"{text}\n\n{_json_block(content.provenance)}"


def _with_interval(row: Mapping[str, Any], column: str, specification: str) -> str:
    value = format_cell(row.get(column), specification)
    if column != "ip" or not value:
        return value
    return f"{value} [{row['ip_low']:{specification}}, {row['ip_high']:{specification}}]"


def _names(names: Iterable[Any]) -> str:
    return escaped(", ".join(map(str, names)))


def _decoded(value: str) -> Any:
    """A header's value, which may be JSON."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def _json_block(value: Any) -> str:
    return fenced(_packed(value), "json")


def _packed(value: Any, indent: int = 0) -> str:
    """JSON with as many entries in a line as fit."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    if indent + len(text) <= WIDTH or not isinstance(value, Mapping):
        return text
    indent += 2
    lines: list[str] = []
    for key in sorted(value):
        entry = f"{json.dumps(key, ensure_ascii=False)}: {_packed(value[key], indent)}"
        joined = f"{lines[-1]}, {entry}" if lines else entry
        if lines and "\n" not in joined and indent + len(joined) < WIDTH:
            lines[-1] = joined
        else:
            lines.append(entry)
    inner = ",\n".join(" " * indent + line for line in lines)
    return f"{{\n{inner}\n{' ' * (indent - 2)}}}"


def _judges(table: pd.DataFrame) -> list[str]:
    """Judges that a table has a column of IP of."""
    columns = [c for c in table if c.startswith("ip_") and c not in ("ip_low", "ip_high")]
    return [column.removeprefix("ip_") for column in columns]
