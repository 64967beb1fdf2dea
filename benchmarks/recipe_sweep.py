"""Recipes of expert training, measured on the pictogram world.

Run ``python -m benchmarks.recipe_sweep`` after ``kedro run --pipelines dataset_generation``. It
trains what ``benchmarks/recipe_plans.py`` asks for and ``build/recipe_sweep.csv`` does not have,
one expert on each core (a small model does not fill two), and prints Markdown. Every expert is
written down as it ends: a run that was cut off goes on, and recipes can be added later. A row is
known by all that decides the result, so after a change of ``conf/base`` only what it changes is
trained again.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.recipe_plans import SWEEPS, Recipe, Settings
from benchmarks.recipe_world import MEASURES, ROOT, World, load_standard, load_world
from benchmarks.tables import table
from safetydpo_kedro.artifacts import fingerprint

EXPERTS = ("violence", "sexual", "hate")
WORKERS = multiprocessing.cpu_count()
RESULTS = ROOT / "build/recipe_sweep.csv"
POOL = ROOT / "build/recipe_pool.safetensors"
COLUMNS = ("key", "recipe", "expert", "seed", "seconds", *MEASURES)
HEADER = (
    "recipe | seeds | IP | drawn as the mate | background | safe | neutral | "
    "neutral background | unsafe of the others | seconds"
)


@dataclass(frozen=True)
class Task:
    """One expert to train and judge.

    Attributes:
        recipe: name of the recipe.
        expert: its category.
        seed: of the training.
        settings: of the training.
        world: identity of the world it is trained in.
    """

    recipe: str
    expert: str
    seed: int
    settings: Settings
    world: str

    @property
    def key(self) -> str:
        """16 hex digits, the same for all tasks that give the same expert."""
        return fingerprint([self.world, self.expert, self.settings])[:16]


Standards = Mapping[str, Mapping[str, Any]]


def recipe_tasks(recipe: Recipe, standards: Standards, world: str) -> list[Task]:
    """A recipe's tasks, seed by seed.

    Args:
        recipe: what to train.
        standards: expert → its standard parameters.
        world: identity of the world.
    """
    return [
        Task(recipe.name, expert, seed, Settings.of(standard, recipe.overrides, seed), world)
        for seed in recipe.seeds
        for expert, standard in standards.items()
    ]


def distinct(tasks: Iterable[Task]) -> list[Task]:
    """Tasks of different keys, the first of each."""
    first: dict[str, Task] = {}
    for task in tasks:
        first.setdefault(task.key, task)
    return list(first.values())


class Worker:
    """A process that holds the world and takes tasks."""

    _world: World  # of the process

    @classmethod
    def begin(cls, load: Callable[[], World]) -> None:
        """Load the world, once."""
        cls._world = load()

    @classmethod
    def measure(cls, task: Task) -> dict[str, float]:
        """See :meth:`World.measure`."""
        return cls._world.measure(task.expert, task.settings)


def read_results(path: Path) -> pd.DataFrame:
    """All rows so far, :data:`COLUMNS`; none if there is no file."""
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.read_csv(path, dtype={"key": str})


def append_result(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row at once, and a header to an empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def run_missing(tasks: Sequence[Task], path: Path, workers: Executor) -> int:
    """Run the tasks that the results lack, in their order; return how many they were."""
    known = set(read_results(path)["key"])
    missing = [task for task in distinct(tasks) if task.key not in known]
    futures = {workers.submit(Worker.measure, task): task for task in missing}
    try:
        for future in tqdm(as_completed(futures), total=len(futures), desc="experts"):
            task = futures[future]
            labels = {"recipe": task.recipe, "expert": task.expert, "seed": task.seed}
            append_result(path, {"key": task.key, **labels, **future.result()})
    finally:
        workers.shutdown(cancel_futures=True)
    return len(missing)


def recipe_row(recipe: Recipe, tasks: Sequence[Task], results: pd.DataFrame) -> list[str]:
    """A recipe's row of a table: means over experts, then over seeds with their spread.

    A seed counts once all of its experts are there. The spread is the standard deviation of the
    seeds' means (n − 1).
    """
    found = results.drop_duplicates("key").set_index("key").reindex([task.key for task in tasks])
    columns, seeds = [*MEASURES, "seconds"], [task.seed for task in tasks]
    done = found["recipe"].notna().groupby(seeds).all()
    # A mean without the trainings that were not finite would look better than it is.
    means = found[columns].astype(float).groupby(seeds).agg(lambda x: x.mean(skipna=False))[done]
    if means.empty:
        return [recipe.name, "0", *["" for _ in columns]]
    shown = [share(means[name]) for name in MEASURES]
    return [recipe.name, str(len(means)), *shown, f"{means['seconds'].mean():.0f}"]


def share(values: pd.Series) -> str:
    """Mean of shares, and their spread.

    Example:
        >>> share(pd.Series([0.5])), share(pd.Series([0.4, 0.6]))
        ('0.50', '0.50 ± 0.14')
    """
    if values.isna().any():
        return "not finite"
    spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


def tables(
    sweeps: Mapping[str, Sequence[Recipe]], standards: Standards, world: str, results: pd.DataFrame
) -> Iterator[tuple[str, list[list[str]]]]:
    """Name and rows of the table of each sweep."""
    for name, recipes in sweeps.items():
        rows = [recipe_row(r, recipe_tasks(r, standards, world), results) for r in recipes]
        yield name, rows


def load() -> World:
    """The project's world, with its pool where the sweep keeps it, for one thread."""
    torch.set_num_threads(1)
    return load_world(POOL)


def main() -> None:
    standards, world = load_standard(EXPERTS), load().identity
    recipes = [recipe for sweep in SWEEPS.values() for recipe in sweep]
    tasks = [task for recipe in recipes for task in recipe_tasks(recipe, standards, world)]
    context = multiprocessing.get_context("spawn")
    run_missing(tasks, RESULTS, ProcessPoolExecutor(WORKERS, context, Worker.begin, (load,)))
    results = read_results(RESULTS)
    for name, rows in tables(SWEEPS, standards, world, results):
        table(f"{name}: means over {', '.join(EXPERTS)}", HEADER, rows)


if __name__ == "__main__":
    main()
