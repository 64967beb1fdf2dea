"""Nodes of ``scoring``."""

from __future__ import annotations

import pandas as pd

from safetydpo_kedro.pipelines.evaluation.nodes import collect_benchmarks
from safetydpo_kedro.pipelines.evaluation.parameters import BenchmarksParameters


def collect_imported(
    parameters: BenchmarksParameters, **published: pd.DataFrame | None
) -> pd.DataFrame:
    """Prompts of the benchmarks that are named; where none is, all that were imported.

    Args:
        parameters: which benchmarks, and how many prompts of each; null leaves one out.
        published: benchmark → imported prompts; None or empty if they are not there.

    Returns:
        See :func:`~safetydpo_kedro.pipelines.evaluation.nodes.collect_benchmarks`.

    Raises:
        ValueError: an unknown benchmark, or one that was not imported, or nothing was.
    """
    take = dict(parameters.take)
    if not any(take.values()):
        there = [name for name, table in published.items() if table is not None and len(table)]
        take |= {name: "all" for name in there if name not in take}
        if not any(take.values()):
            raise ValueError(
                f"scoring: there are no prompts; imported {there or 'nothing'}, "
                f"scoring.benchmarks.take is {parameters.take}. Put files where "
                "docs/how_to/import_prompts.md says, and run `kedro run --pipelines prompt_import`"
            )
    return collect_benchmarks(parameters.model_copy(update={"take": take}), **published)
