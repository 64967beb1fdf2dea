"""Tables of a small made-up evaluation, computed by the functions that compute the real ones."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image

from safetydpo_kedro.metrics.config import BootstrapConfig
from safetydpo_kedro.metrics.paired import paired_comparison
from safetydpo_kedro.metrics.thresholds import threshold_sweep
from safetydpo_kedro.reporting.figures import (
    ip_by_category_figure,
    ip_by_threshold_figure,
    safety_and_quality_figure,
)
from safetydpo_kedro.reporting.html_report import ReportContent
from safetydpo_kedro.reporting.paper_table import paper_table
from safetydpo_kedro.reporting.tables import benchmark_table, per_category_table, variant_table

CATEGORIES = ("hate", "violence", "sexual")
# Share of unsafe images that Q16 flags, FID and CLIPScore on neutral prompts.
VARIANTS = {
    "base": (0.9, 10.0, 31.0),
    "linear": (0.5, 9.5, 30.5),
    "co_merge": (0.1, 102.0, 28.0),
    "all_single": (0.15, 14.0, 29.5),
}
KINDS = {"base": "base", "linear": "merge", "co_merge": "merge", "all_single": "joint"}
PROMPT = 'a <script>document.title = "broken"</script> & "knife"'
PROVENANCE = {
    "q16": {"clip": {"name": "ViT-L-14", "weights_sha256": "ab" * 32}, "prompts_sha256": "cd" * 32},
    "nudenet": {"name": "nudenet 3.4.2", "classes": ["FEMALE_GENITALIA_EXPOSED"], "threshold": 0.2},
    "drawing": {"steps": 20, "guidance_scale": 7.5, "resolution": None},
    "versions": {"safetydpo_kedro": "0.1", "torch": "2.15"},
}


@dataclass(frozen=True)
class Evaluation:
    """Image scores and the tables that come of them."""

    scores: pd.DataFrame
    benchmark_table: pd.DataFrame
    category_table: pd.DataFrame
    variants: pd.DataFrame


def image_scores(images: int = 24) -> pd.DataFrame:
    """Judged images: as many unsafe ones of each category, and of each variant neutral ones."""
    rows = []
    for variant, (share, _, clip_score) in VARIANTS.items():
        for i in range(len(CATEGORIES) * images):
            score = float(np.random.default_rng(i).random())
            flagged = score < share
            category = CATEGORIES[i % len(CATEGORIES)]
            rows.append((variant, "unsafe", f"u{i}", category, i, flagged, 1 - score, 20.0))
        for i in range(images):
            rows.append((variant, "neutral", f"n{i}", None, i, False, 0.1, clip_score + i / 100))
    columns = "variant benchmark prompt_id category seed inappropriate q16_score clip_score"
    table = pd.DataFrame(rows, columns=columns.split())
    names = table["variant"] + table["benchmark"] + table["prompt_id"]
    hashes = names.map(lambda name: hashlib.sha256(name.encode()).hexdigest())
    weights = table["variant"].map(lambda name: hashlib.sha256(name.encode()).hexdigest())
    return table.assign(
        prompt=table["prompt_id"].map({"u0": PROMPT}).fillna("a red cup on a table"),
        q16_inappropriate=table["inappropriate"],
        nudenet_score=0.0,
        nudenet_inappropriate=False,
        image_sha256=hashes,
        weights_sha256=weights,
    )


@cache
def evaluation(images: int = 24) -> Evaluation:
    """The tables; FID was measured on neutral prompts only."""
    scores = image_scores(images)
    fid = pd.DataFrame(
        [(name, "neutral", fid, 0.97) for name, (_, fid, _) in VARIANTS.items()],
        columns=["variant", "benchmark", "fid", "concept_accuracy"],
    )
    bootstrap = BootstrapConfig(resamples=50)
    return Evaluation(
        scores,
        benchmark_table(scores, [fid], bootstrap),
        per_category_table(scores, ["unsafe"], bootstrap),
        variant_table(scores, KINDS),
    )


def picture(number: int) -> bytes:
    """A small image, encoded as PNG."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def report_content(**changes) -> ReportContent:
    """What a report shows, with some of it changed; the tables are shared, so copy them first."""
    return replace(_content(), **changes)


@cache
def _content() -> ReportContent:
    tables = evaluation()
    scores, table = tables.scores, tables.benchmark_table
    pairs = [(name, "base") for name in VARIANTS if name != "base"]
    thresholds = threshold_sweep(scores, {"q16": [0.25, 0.5, 0.75], "nudenet": [0.2, 0.5]})
    unsafe = thresholds[thresholds["benchmark"] == "unsafe"]
    shown = scores[scores["prompt_id"].isin(["u0", "u1", "n0"])]
    return ReportContent(
        title="Safety evaluation",
        benchmark_table=table,
        paper_table=paper_table(table, ["unsafe"], ["neutral"]),
        category_table=tables.category_table,
        comparisons=paired_comparison(scores, pairs, BootstrapConfig(resamples=50)),
        thresholds=thresholds,
        datasets=pd.DataFrame(
            {"benchmark": ["unsafe", "neutral"], "prompts": [72, 24], "ip": [0.9, np.nan]}
        ),
        variants=tables.variants,
        figures={
            "Safety against quality": safety_and_quality_figure(
                table, "unsafe", "neutral", "clip_score", "Safety against quality"
            ),
            "IP by category": ip_by_category_figure(tables.category_table),
            "IP by threshold": ip_by_threshold_figure(unsafe),
        },
        examples=shown.assign(image=[picture(i) for i in range(len(shown))]),
        provenance=PROVENANCE,
    )
