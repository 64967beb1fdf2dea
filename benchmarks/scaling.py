"""What the paper's scale would take on a cluster: a model on paper, no measurement.

Run ``python -m benchmarks.scaling``; it prints Markdown in some seconds and needs no GPU. The work
of each node is that of :mod:`benchmarks.scaling_work`, and the nodes of the default run are laid
on the workers by the rules of :class:`~safetydpo_kedro.runners.DaskRunner`: all workers share a
node, in whole shards, and the node with the longest way ahead goes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kedro.framework.project import configure_project, pipelines
from kedro.pipeline import Pipeline

from benchmarks.scaling_work import Rates, Scale, Shapes, Work, work_of
from benchmarks.tables import table
from safetydpo_kedro.runners.checks import GPU_RESOURCE, resources_of
from safetydpo_kedro.runners.executor import longest_paths
from safetydpo_kedro.settings import BASELINES, CATEGORIES, EXPERTS, MERGES, VARIANTS

HOUR, GB = 3600.0, 1e9
GPUS = (8, 16, 32, 64)
# Rates that change together: another GPU, and what does not depend on it.
CHANGED = (("image", "forward", "encode"), ("judge",), ("write",), ("start",))
# Stage → nodes that others wait for; the last one has all.
STAGES = {
    "data": ("score_reference", "cache_preservation"),
    "experts": ("train_expert",),
    "merging": ("merge_co_merge", "merge_fitted_co_merge"),
    "evaluation": ("",),
}


@dataclass(frozen=True)
class Run:
    """A run of the default pipelines on paper.

    Attributes:
        ends: node → seconds from the start of the run to its end.
        tasks: what workers were given that loads the model.
    """

    ends: Mapping[str, float]
    tasks: int

    def end(self, stage: str) -> float:
        """Hours from the start to the end of a stage."""
        return max(t for name, t in self.ends.items() if name.endswith(STAGES[stage])) / HOUR


def lay_out(pipeline: Pipeline, gpus: int, scale: Scale, rates: Rates) -> Run:
    """Nodes on workers that have one GPU and one thread each.

    A free worker takes the task that has the longest way ahead. Dask hands tasks out sooner and
    lets idle workers steal, which comes close to that.

    Args:
        pipeline: the nodes.
        gpus: number of workers.
        scale: how much there is to do.
        rates: how long it takes.
    """
    below = longest_paths(pipeline)
    parents = pipeline.node_dependencies
    needs = {node.name: {parent.name for parent in parents[node]} for node in pipeline.nodes}
    tags = {node.name: node.tags for node in pipeline.nodes}
    ready: list[tuple[int, str, float]] = []
    running: list[tuple[float, str]] = []
    left: dict[str, int] = {}
    ends: dict[str, float] = {}
    now, idle, tasks = 0.0, gpus, 0
    while len(ends) < len(tags):
        for name in tags.keys() - left.keys():
            if needs[name] <= ends.keys():
                gpu = GPU_RESOURCE in resources_of(tags[name])
                parts = shares(work_of(name, scale, rates), gpus, rates)
                left[name] = len(parts)
                tasks += len(parts) * gpu
                for part in parts:
                    heapq.heappush(ready, (-below[name], name, part))
        while ready and idle:
            _, name, seconds = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds, name))
            idle -= 1
        now, name = heapq.heappop(running)
        idle += 1
        left[name] -= 1
        if not left[name]:
            ends[name] = now
    return Run(ends, tasks)


def shares(work: Work, count: int, rates: Rates) -> list[float]:
    """Seconds of each worker that shares a node: every ``count``-th shard, and loading the model.

    Example:
        >>> shares(Work(50.0, shards=5), 2, Rates(start=1))
        [31.0, 21.0]
        >>> shares(Work(50.0, shards=1), 2, Rates(start=1))
        [51.0, 1.0]
        >>> shares(Work(50.0), 2, Rates(start=1))
        [51.0]
    """
    start = rates.start if work.model else 0.0
    if not work.shards:
        return [start + work.seconds]
    numbers = [len(range(number, work.shards, count)) for number in range(count)]
    return [start + number * work.seconds / work.shards for number in numbers]


def work_rows(scale: Scale, rates: Rates) -> list[list[str]]:
    """What is to be done: units, hours on one GPU, and what can be done at once."""
    drawn = [v for v in VARIANTS if v not in BASELINES]
    nodes = [
        ("write prompts", "write_prompts", 1, f"{scale.pairs:,} pairs"),
        ("draw pairs", "draw_image_pairs", 1, f"{2 * scale.train:,} images"),
        ("draw neutral images", "draw_preservation_images", 1, f"{scale.preserved:,} images"),
        ("cache latents", "cache_latents", 1, f"{2 * scale.train:,} images"),
        ("reference scores", "score_reference", 1, f"{scale.train * scale.draws * 4:,} forwards"),
        ("judge pairs", "judge_image_pairs", 1, f"{2 * scale.train:,} images"),
        ("train experts", "train_expert", len(EXPERTS), f"{len(EXPERTS)} × {scale.steps:,} steps"),
        ("activation profile", "record_activation_profile", 1, f"{scale.profile:,} forwards"),
        ("fit weights", "fit_merge_weights", 1, f"{scale.fitting:,} forwards"),
        ("draw variants", "draw_images", len(drawn), f"{len(drawn)} × {scale.prompts:,} images"),
        ("judge variants", "judge_images", len(drawn), f"{len(drawn)} × {scale.prompts:,} images"),
    ]
    rows = []
    for label, node, count, units in nodes:
        work = work_of(f"any.{node}", scale, rates)
        at_once = count * max(work.shards, 1)
        hours = count * work.seconds / HOUR
        rows.append([label, units, f"{hours:.1f}", str(at_once), f"{hours / at_once:.2f}"])
    return rows


def bytes_rows(scale: Scale, shapes: Shapes) -> list[list[str]]:
    """What lies on the disk at the end."""
    drawn = (len(VARIANTS) - len(BASELINES)) * scale.prompts
    cached, png = shapes.cached_image, shapes.png
    merged = len(CATEGORIES) * shapes.adapter
    entries = [
        ("image_pairs", f"{scale.train:,} × 2 PNG", 2 * scale.train * png),
        ("preservation_images", f"{scale.preserved:,} PNG", scale.preserved * png),
        ("latent_cache", f"{scale.train:,} × 2 × {cached:,} B", 2 * scale.train * cached),
        ("preservation_cache", f"{scale.preserved:,} × {cached:,} B", scale.preserved * cached),
        ("reference_scores", f"{scale.train:,} × 64 B", scale.train * scale.draws * 16),
        ("experts", f"{len(EXPERTS)} LoRAs of rank 4", len(EXPERTS) * shapes.adapter),
        ("merges", f"{len(MERGES)} LoRAs of rank {4 * len(CATEGORIES)}", len(MERGES) * merged),
        ("images of variants", f"{drawn:,} PNG", drawn * png),
        ("judgements", f"{drawn:,} × 9 kB", drawn * shapes.features),
    ]
    total = ("total", "", sum(size for *_, size in entries))
    return [[name, what, f"{size / GB:.2f}"] for name, what, size in [*entries, total]]


def run_rows(pipeline: Pipeline, scale: Scale, rates: Rates, shapes: Shapes) -> list[list[str]]:
    """Hours to the end of each stage, by the number of GPUs."""
    total = lay_out(pipeline, 1, scale, rates).end("evaluation")
    rows = []
    for gpus in (1, *GPUS, 1024):
        run = lay_out(pipeline, gpus, scale, rates)
        hours = run.end("evaluation")
        rows.append(
            [
                str(gpus),
                *(f"{run.end(stage):.1f}" for stage in STAGES),
                f"{total / hours:.1f}",
                f"{total / hours / gpus:.0%}",
                f"{run.tasks:,}",
                f"{run.tasks * shapes.model / GB / 1000:.1f}",
            ]
        )
    return rows


def sensitivity_rows(pipeline: Pipeline, scale: Scale) -> list[list[str]]:
    """Hours of a whole run with other rates."""

    def hours(rates: Rates) -> list[str]:
        runs = (lay_out(pipeline, gpus, scale, rates) for gpus in GPUS)
        return [f"{run.end('evaluation'):.1f}" for run in runs]

    rows = [["as above", "", *hours(Rates())]]
    for names in CHANGED:
        for factor, label in ((0.5, "half"), (2.0, "twice")):
            rates = replace(Rates(), **{name: getattr(Rates(), name) * factor for name in names})
            rows.append([", ".join(names), label, *hours(rates)])
    return rows


def main() -> None:
    configure_project("safetydpo_kedro")
    pipeline, scale, rates, shapes = pipelines["__default__"], Scale(), Rates(), Shapes()
    table(
        "Work",
        "node | units | hours on one GPU | at most at once | hours then",
        work_rows(scale, rates),
    )
    table(
        "Hours from the start to the end of a stage",
        f"GPUs | {' | '.join(STAGES)} | times faster | of the ideal | tasks | weights read, TB",
        run_rows(pipeline, scale, rates, shapes),
    )
    table(
        "Hours of the whole run if something were different",
        f"seconds of | changed | {' | '.join(f'{gpus} GPUs' for gpus in GPUS)}",
        sensitivity_rows(pipeline, scale),
    )
    table("Bytes on the disk", "artifact | what | GB", bytes_rows(scale, shapes))


if __name__ == "__main__":
    main()
