"""The evaluation as one HTML file that loads nothing and hides nothing of where it comes from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from safetydpo_kedro.reporting.findings import safest, small_samples
from safetydpo_kedro.reporting.html_tables import HEADINGS, HtmlTable, heading, html_table
from safetydpo_kedro.reporting.paper_table import BASE, best_values, column_formats

ASSETS = Path(__file__).parent / "assets"
# First bytes of the formats that an image may be encoded in.
_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class ReportContent:
    """Everything that the report shows.

    Attributes:
        title: of the page.
        benchmark_table: measures by variant and benchmark.
        paper_table: see :mod:`safetydpo_kedro.reporting.paper_table`.
        category_table: IP by variant, benchmark and category.
        comparisons: paired tests of IP.
        thresholds: IP over thresholds of single judges.
        datasets: what the benchmarks consist of; ``ip`` is that of the base model.
        variants: where the numbers of each variant come from: ``variant, kind`` and any others.
        figures: title → chart.
        examples: one row per image: ``variant, benchmark, prompt_id, category, prompt, seed,
            image`` (encoded bytes), ``inappropriate``, scores (``…_score``) and ``image_sha256``
            (of the image as it was drawn; without it, that of ``image`` is shown).
        provenance: nested mapping: judges with versions and hashes, parameters, packages.
        blur: which images to make unrecognisable until somebody asks for them.
        harmful: benchmarks on which a low IP matters; empty: those of ``category_table``.
        benign: benchmarks that show quality; empty: all others.
        small_sample: fewer images than this are called a small sample.
    """

    title: str
    benchmark_table: pd.DataFrame
    paper_table: pd.DataFrame
    category_table: pd.DataFrame
    comparisons: pd.DataFrame
    thresholds: pd.DataFrame
    datasets: pd.DataFrame
    variants: pd.DataFrame
    figures: Mapping[str, go.Figure]
    examples: pd.DataFrame
    provenance: Mapping[str, Any]
    blur: Literal["all", "flagged", "none"] = "all"
    harmful: Sequence[str] = ()
    benign: Sequence[str] = ()
    small_sample: int = 200


def html_report(content: ReportContent) -> str:
    """Write the report.

    Returns:
        HTML with plotly.js, styles, scripts and images inside. Its content security policy forbids
        everything else, so not even a prompt that smuggles in markup can load or run anything.

    Raises:
        ValueError: a table has a variant that ``variants`` lacks.
    """
    targets = {str(name): f"variant-{i}" for i, name in enumerate(content.variants["variant"])}
    harmful = list(content.harmful or content.category_table["benchmark"].unique())
    others = [name for name in content.benchmark_table["benchmark"].unique() if name not in harmful]
    benign = list(content.benign or others)
    findings = [
        safest(content.benchmark_table, name, benign, content.comparisons) for name in harmful
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [get_plotlyjs().replace("\r\n", "\n"), _asset("report.js")]
    return environment.get_template("report.html.jinja").render(
        content=content,
        style=Markup(_asset("report.css")),
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
        targets=targets,
        findings=[finding for finding in findings if finding],
        small=_small(content),
        fewest=_fewest_of_fid(content.benchmark_table),
        tables=_tables(content, targets, harmful),
        figures=[(name, _figure_json(figure)) for name, figure in content.figures.items()],
        grid=_example_grid(content, targets, harmful),
        variants=_variant_entries(content.variants),
        base=BASE,
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts may run, and nothing may be loaded."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Plotly writes styles of its own, and draws the picture that one may download.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _tables(
    content: ReportContent, targets: Mapping[str, str], harmful: Sequence[str]
) -> dict[str, HtmlTable]:
    """All tables by their key, those without rows left out."""
    datasets = content.datasets.rename(columns={"ip": "IP of base"})
    tables = [
        html_table(
            "paper",
            "Safety and quality in the form of the paper; best values bold, base model aside",
            content.paper_table,
            targets,
            best_values(content.paper_table),
            column_formats(content.paper_table),
        ),
        html_table("measures", "All measures", content.benchmark_table, targets),
        html_table("categories", "IP by category", content.category_table, targets),
        html_table("comparisons", "Paired comparisons of IP", content.comparisons, targets),
        html_table(
            "thresholds",
            "IP over thresholds of each judge, harmful benchmarks",
            content.thresholds[content.thresholds["benchmark"].isin(harmful)],
            targets,
            formats={"threshold": "g"},
        ),
        html_table("datasets", "What the benchmarks consist of", datasets, targets),
    ]
    return {table.key: table for table in tables if table.rows}


def _small(content: ReportContent) -> list[dict[str, Any]]:
    """Benchmarks and categories with few images."""
    groups = []
    for table, by in (
        (content.benchmark_table, ["benchmark"]),
        (content.category_table, ["benchmark", "category"]),
    ):
        rows = small_samples(table, by, content.small_sample) if len(table) else table
        for benchmark, some in rows.groupby("benchmark", sort=False) if len(rows) else ():
            groups.append(
                {
                    "benchmark": benchmark,
                    "categories": some["category"].tolist() if "category" in some else [],
                    "fewest": int(some["images"].min()),
                    "most": int(some["images"].max()),
                    "width": float(some["width"].max()),
                }
            )
    return groups


def _fewest_of_fid(table: pd.DataFrame) -> int | None:
    """The smallest set of images, drawn or real, that an FID is over; None without any FID."""
    if "fid" not in table or table["fid"].isna().all():
        return None
    sides = [column for column in ("images", "references") if column in table]
    return int(table.loc[table["fid"].notna(), sides].min().min())


def _figure_json(figure: go.Figure) -> Markup:
    """A chart without its title, which the page shows; plotly escapes ``<`` and ``>``."""
    copy = go.Figure(figure).update_layout(title=None, margin={"t": 56})
    return Markup(copy.to_json())


def _variant_entries(variants: pd.DataFrame) -> list[list[tuple[str, str]]]:
    """What is known of each variant, as pairs of heading and text."""
    return [
        [(heading(str(name)), str(value)) for name, value in row.items() if not pd.isna(value)]
        for row in variants.to_dict("records")
    ]


def _example_grid(
    content: ReportContent, targets: Mapping[str, str], harmful: Sequence[str]
) -> dict[str, Any]:
    """Examples by prompt (rows) and variant (columns)."""
    examples = content.examples
    if examples.empty:
        return {"variants": [], "rows": []}
    variants = list(examples["variant"].unique())
    scores = [c for c in examples if str(c).endswith("_score")]
    rows = []
    for (benchmark, prompt_id, seed), some in examples.groupby(
        ["benchmark", "prompt_id", "seed"], sort=False
    ):
        images = {
            row["variant"]: _image(row, scores, content.blur) for row in some.to_dict("records")
        }
        category = some["category"].iloc[0]
        rows.append(
            {
                "benchmark": benchmark,
                "prompt_id": prompt_id,
                "seed": seed,
                "category": "" if pd.isna(category) else category,
                "prompt": some["prompt"].iloc[0],
                "harmful": benchmark in harmful,
                "images": [images.get(variant) for variant in variants],
            }
        )
    return {"variants": [(name, targets.get(str(name), "")) for name in variants], "rows": rows}


def _image(row: Mapping[str, Any], scores: Sequence[str], blur: str) -> dict[str, Any]:
    encoded = row["image"]
    kind = next((kind for start, kind in _SIGNATURES.items() if encoded.startswith(start)), None)
    if kind is None:
        raise ValueError(
            f"examples: image of {row['variant']}, {row['benchmark']} {row['prompt_id']} is no "
            f"PNG, JPEG or WebP; it starts with {encoded[:8]!r}"
        )
    flagged = bool(row["inappropriate"])
    # Of a judge its name; CLIPScore is no judge's.
    names = {c: HEADINGS.get(c, heading(c.removesuffix("_score"))) for c in scores}
    shown = {name: row[column] for column, name in names.items() if not pd.isna(row[column])}
    return {
        "variant": row["variant"],
        "source": f"data:{kind};base64,{base64.b64encode(encoded).decode()}",
        "flagged": flagged,
        "veiled": blur == "all" or (blur == "flagged" and flagged),
        "scores": {name: format(float(value), ".3g") for name, value in shown.items()},
        "seed": row["seed"],
        "sha256": row.get("image_sha256") or hashlib.sha256(encoded).hexdigest(),
    }
