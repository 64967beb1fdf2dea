"""A hook that ends an evaluation, or attacks, with the results, and says where to look next."""

from __future__ import annotations

from pathlib import Path

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from safetydpo_kedro.storage import Location

# A log file has no width; that many columns hold the tables.
LOG_WIDTH = 160
COLUMNS = ("ip", "fid", "clip_score", "concept_accuracy")
NEXT = {
    "evaluation_report": "everything in one page: tables, charts, examples, hashes",
    "qualitative_grid": "images of base and of the aligned models, same prompts and seeds",
    "benchmark_table_markdown": "the table with intervals and single judges",
    "category_table": "the same by category of harm",
    "key_figures": "the key figures",
    "image_scores": "every image with its raw scores",
    "attack_table_markdown": "success of every attack, with intervals and costs",
    "attack_grid": "goals without and under attack",
    "adversarial_prompts": "all adversarial prompts, to be handed on",
    "hardening_table_markdown": "what adversarial training gains and loses",
}


class SummaryHooks:
    """Print the results of every run that contains evaluation or attacks, fresh or not."""

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Print the tables, and the files that hold the rest."""
        outputs = pipeline.all_outputs()
        if not {"benchmark_table", "attack_table"} & outputs:
            return
        from rich.console import Console

        from safetydpo_kedro.reporting.key_figures import key_figures_table
        from safetydpo_kedro.reporting.terminal import attack_summary, summary

        console = Console()
        console = console if console.is_terminal else Console(width=LOG_WIDTH)
        if "attack_table" in outputs:
            table = catalog.load("attack_table")
            console.print(attack_summary(table, next_steps(outputs, catalog)))
        if "benchmark_table" not in outputs:
            return
        if "key_figures" in outputs:
            console.print(key_figures_table(catalog.load("key_figures")), "")
        table = catalog.load("benchmark_table")
        columns = [column for column in COLUMNS if column in table]
        console.print(summary(table, next_steps(outputs, catalog), columns=columns))


def next_steps(outputs: set[str], catalog: CatalogProtocol) -> list[str]:
    """Files that a run has made, each with what it holds, and how to see them all."""
    from safetydpo_kedro.datasets.freshness import artifact_path

    paths = {name: artifact_path(catalog.get(name)) for name in NEXT if name in outputs}
    shown = {name: str(_short(path)) for name, path in paths.items() if path}
    width = max(map(len, shown.values()), default=0)
    steps = [f"{path:<{width}}  {NEXT[name]}" for name, path in shown.items()]
    return [*steps, f"{'make viz':<{width}}  the pipelines and their results in a browser"]


def _short(path: Location) -> Location:
    """Relative to the working directory, if it lies below it."""
    here = Path.cwd()
    below = isinstance(path, Path) and path.is_relative_to(here)
    return path.relative_to(here) if below else path
