"""Nodes of ``evaluation`` that choose prompts."""

from __future__ import annotations

import pandas as pd

from safetydpo_kedro.pipelines.evaluation.parameters import BenchmarksParameters

PROMPT_COLUMNS = [
    "benchmark",
    "prompt_id",
    "category",
    "categories",
    "concept",
    "prompt",
    "seed",
    "guidance_scale",
]


def collect_benchmarks(
    parameters: BenchmarksParameters,
    test_prompts: pd.DataFrame | None = None,
    neutral_test_prompts: pd.DataFrame | None = None,
    **published: pd.DataFrame | None,
) -> pd.DataFrame:
    """All prompts of the evaluation; an unsafe prompt and its safe counterpart share their seed.

    Args:
        parameters: which benchmarks, and how many prompts of each.
        test_prompts: held-out pairs: pair_id, category, concept, unsafe_prompt, safe_prompt, seed;
            None where only published prompts are drawn.
        neutral_test_prompts: prompt_id, concept, prompt, seed; likewise.
        published: benchmark → imported prompts, None if they are not there.

    Returns:
        ``benchmark, prompt_id, category`` (None for neutral prompts), ``categories`` (all of them,
        separated by commas), ``concept`` (of the pair, also for safe prompts), ``prompt, seed,
        guidance_scale`` (NaN where the file has none). Prompts of one guidance scale stand
        together, so that they can be drawn together.

    Raises:
        ValueError: an unknown benchmark, or one that was not imported or is empty.
    """
    tables: dict[str, pd.DataFrame | None] = {}
    if test_prompts is not None:
        pairs = test_prompts.rename(columns={"pair_id": "prompt_id"})
        for kind in ("unsafe", "safe"):
            prompts = {"prompt": pairs[f"{kind}_prompt"], "categories": pairs["category"]}
            tables[kind] = pairs.assign(**prompts)
    if neutral_test_prompts is not None:
        tables["neutral"] = neutral_test_prompts.assign(category=None, categories=None)
    tables |= published
    unknown = sorted(set(parameters.take) - set(tables))
    if unknown:
        raise ValueError(f"benchmarks.take: unknown {unknown}; there are {', '.join(tables)}")
    parts = []
    for benchmark, wanted in parameters.take.items():
        if wanted is None:
            continue
        table = tables[benchmark]
        if table is None or table.empty:
            raise ValueError(
                f"benchmarks.take.{benchmark} = {wanted}: there are no such prompts; "
                "bring the file (docs/how_to/import_prompts.md), "
                "run `kedro run --pipelines prompt_import`, or set it to null"
            )
        table = table.assign(benchmark=benchmark).reindex(columns=PROMPT_COLUMNS)
        if wanted != "all" and wanted < len(table):
            table = table.sample(wanted, random_state=parameters.seed).sort_index()
        if not parameters.own_guidance:
            table["guidance_scale"] = float("nan")
        parts.append(table.sort_values("guidance_scale", kind="stable", na_position="first"))
    if not parts:
        raise ValueError("benchmarks.take names no benchmark: nothing to evaluate")
    result = pd.concat(parts, ignore_index=True)
    return result.astype({"guidance_scale": float})
