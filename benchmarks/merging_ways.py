"""The ways to merge that are compared, and what each took on one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.merging_problem import DENSITY, Problem
from benchmarks.timing import Timed, in_turns
from safetydpo_kedro.diffusion.lora import LoraLayer


@dataclass(frozen=True)
class Way:
    """One way to merge.

    Attributes:
        side: ``ours`` or ``peft``, the method of :class:`Problem` that runs it.
        name: strategy, or PEFT's combination type.
        options: others than the rank.
        rank: name of the option that cuts the output to the rank of one expert; None if the
            output has the rank ``Σ_e r_e``.
        target: the method of :class:`Problem` that gives what is approximated; None if that has
            no short definition.
    """

    side: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()
    rank: str | None = None
    target: str | None = None

    @property
    def label(self) -> str:
        """As in the tables."""
        shown = [f"{key}={value}" for key, value in self.options if key != "density"]
        return ", ".join([self.name, *shown])

    def run(self, problem: Problem) -> Timed:
        """Merge; seconds and layers by name."""
        cut = {self.rank: problem.rank} if self.rank else {}
        return getattr(problem, self.side)(self.name, **dict(self.options), **cut)

    def output_rank(self, count: int, rank: int) -> int:
        """Of every layer, for ``count`` experts of rank ``rank``."""
        return rank if self.rank else count * rank


TRIM = (("density", DENSITY),)
SINGLE = (("precision", "float32"),)
CAT = Way("ours", "cat", target="total")
CO_MERGE = Way("ours", "co_merge", target="owned_rows")
SVD = Way("ours", "svd", rank="rank", target="total")
SVD32 = Way("ours", "svd", SINGLE, "rank", "total")
TSV = Way("ours", "tsv", (("kept", 1.0),), "rank")
KNOTS = Way("ours", "knots", TRIM, "rank")
TIES = Way("ours", "ties", TRIM, "rank", "ties")
TIES32 = Way("ours", "ties", (*TRIM, *SINGLE), "rank", "ties")
PEFT_CAT = Way("peft", "cat", target="total")
PEFT_SVD = Way("peft", "svd", rank="svd_rank", target="total")
PEFT_THIN = Way("peft", "svd", (("svd_full_matrices", False),), "svd_rank", "total")
PEFT_TIES_SVD = Way("peft", "ties_svd", TRIM, "svd_rank", "ties")
# Merges A and B apart, so it has the experts' rank; it does not read the option.
PEFT_TIES = Way("peft", "ties", TRIM, "svd_rank", "ties")

Pairs = tuple[tuple[Way, Way], ...]
SUMS: Pairs = ((CAT, PEFT_CAT), (SVD, PEFT_SVD), (SVD32, PEFT_SVD))
ALL: Pairs = (
    (CAT, PEFT_CAT),
    (CO_MERGE, PEFT_CAT),
    (SVD, PEFT_SVD),
    (SVD, PEFT_THIN),
    (SVD32, PEFT_SVD),
    (TSV, PEFT_SVD),
    (KNOTS, PEFT_TIES_SVD),
    (TIES, PEFT_TIES_SVD),
    (TIES32, PEFT_TIES_SVD),
    (TIES, PEFT_TIES),
)


@dataclass(frozen=True)
class Outcome:
    """What one way took on one model, and how far its result is from what it approximates.

    Attributes:
        seconds: of each round.
        gap: ``‖ΔW − target‖²`` in float64, summed over layers; None without a target.
        size: ``‖target‖²``, likewise.
    """

    seconds: tuple[float, ...]
    gap: float | None
    size: float | None


def outcomes(problem: Problem, pairs: Pairs, rounds: int) -> dict[Way, Outcome]:
    """Merge one model in all ways of some pairs, in turns, after a round that warms up."""
    ways = list(dict.fromkeys(way for pair in pairs for way in pair))
    runs = in_turns({f"{w.side} {w.label}": _merging(w, problem) for w in ways}, rounds)
    timings = dict(zip(ways, runs.values(), strict=True))
    distances = _distances(problem, {way: timed[-1].result for way, timed in timings.items()})
    return {
        way: Outcome(tuple(timing.seconds for timing in timed), *distances[way])
        for way, timed in timings.items()
    }


def _merging(way: Way, problem: Problem) -> Callable[[int], Timed]:
    return lambda _: way.run(problem)


def _distances(
    problem: Problem, results: Mapping[Way, Mapping[str, LoraLayer]]
) -> dict[Way, tuple[float | None, float | None]]:
    """``‖ΔW − target‖²`` and ``‖target‖²``; each target is made once, and one layer at a time."""
    sums = {way: [0.0, 0.0] for way in results if way.target}
    for name in problem.shapes:
        targets = {each: getattr(problem, each)(name) for each in {way.target for way in sums}}
        for way, both in sums.items():
            layer, target = results[way][name], targets[way.target]
            delta = layer.scale * layer.b.double() @ layer.a.double()
            both[0] += (delta - target).square().sum().item()
            both[1] += target.square().sum().item()
    return {way: tuple(sums.get(way, (None, None))) for way in results}
