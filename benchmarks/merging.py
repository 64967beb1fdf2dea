"""Time and memory of merging experts, against PEFT's ``add_weighted_adapter``.

Run ``python -m benchmarks.merging``; it prints Markdown. Both sides merge the same experts, in the
same process, in turns, on the attention layers of the published UNets. Ways that are compared give
adapters of the same rank; how far each is from what it approximates is printed beside.

*Times of a UNet are extrapolated*: one layer of each shape is timed, and counts as often as the
shape occurs. Dense SVDs of all layers of SDXL would take minutes a round. The second table merges
all layers of SD 1.5, and says how far off that is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.merging_problem import Problem, Shape, all_of, attention_shapes, one_of
from benchmarks.merging_ways import (
    ALL,
    CAT,
    CO_MERGE,
    KNOTS,
    PEFT_CAT,
    PEFT_SVD,
    PEFT_TIES_SVD,
    SUMS,
    SVD,
    TIES,
    TSV,
    Outcome,
    Pairs,
    Way,
    outcomes,
)
from benchmarks.meters import PROFILED, size_of
from benchmarks.tables import MIB, machine, table
from benchmarks.timing import speedup

FAMILIES = ("sd15", "sdxl")


@dataclass(frozen=True)
class Case:
    """Experts, and the pairs of ways in which they are merged.

    Attributes:
        count: number of experts.
        rank: of each.
        pairs: ours and PEFT's.
        rounds: that count.
    """

    count: int
    rank: int
    pairs: Pairs = SUMS
    rounds: int = 3


CASES = (
    Case(7, 4, ALL),
    *(Case(count, 4) for count in (2, 4, 16, 32, 64)),
    *(Case(count, 16) for count in (2, 7)),
    *(Case(count, 64) for count in (2, 7)),
    *(Case(count, rank, rounds=1) for count, rank in ((64, 16), (16, 64), (64, 64))),  # slow
)
CHECK = Case(7, 4, ((CAT, PEFT_CAT), (SVD, PEFT_SVD)), rounds=1)
WEIGHED = (CAT, CO_MERGE, SVD, TSV, KNOTS, TIES, PEFT_CAT, PEFT_SVD, PEFT_TIES_SVD)
SMALL, LARGE = (320, 7, 4), (1280, 7, 4)  # side of a square layer, experts, rank
SIZES = (SMALL, (640, 7, 4), LARGE, (1280, 28, 4), (1280, 7, 16))


@dataclass(frozen=True)
class Sample:
    """One layer of each shape, merged.

    Attributes:
        case: which experts.
        layers: shape → way → outcome.
    """

    case: Case
    layers: Mapping[Shape, Mapping[Way, Outcome]]

    @classmethod
    def of(cls, shapes: Sequence[Shape], case: Case) -> Sample:
        """Measure."""
        problems = {shape: Problem(one_of(shape), case.count, case.rank) for shape in shapes}
        return cls(case, {s: outcomes(p, case.pairs, case.rounds) for s, p in problems.items()})

    def seconds(self, way: Way, shapes: Counter[Shape]) -> list[float]:
        """Of a model that has each shape so often, extrapolated; for each round."""
        return [
            sum(n * self.layers[shape][way].seconds[number] for shape, n in shapes.items())
            for number in range(self.case.rounds)
        ]

    def error(self, way: Way, shapes: Counter[Shape]) -> float | None:
        """``‖ΔW − target‖ / ‖target‖`` over all layers of that model; None without a target."""
        found = [(n, self.layers[shape][way]) for shape, n in shapes.items()]
        if way.target is None:
            return None
        gap = sum(n * outcome.gap for n, outcome in found)
        return (gap / sum(n * outcome.size for n, outcome in found)) ** 0.5


def time_rows(sample: Sample, families: Mapping[str, Counter[Shape]]) -> Iterator[list[str]]:
    """A row for each family and pair of ways."""
    case = sample.case
    for family, shapes in families.items():
        for ours, peft in case.pairs:
            seconds, other = (sample.seconds(way, shapes) for way in (ours, peft))
            yield [
                family,
                f"{case.count}",
                f"{case.rank}",
                f"{ours.output_rank(case.count, case.rank)}",
                ours.label,
                peft.label,
                short(speedup(seconds, other)),
                short(median(seconds)),
                short(median(other)),
                error_cell(sample.error(ours, shapes)),
                error_cell(sample.error(peft, shapes)),
            ]


def short(number: float) -> str:
    """Three digits, and no exponent for large numbers."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def error_cell(error: float | None) -> str:
    """Rounding errors in short, others with the digits in which two ways might differ."""
    if error is None:
        return ""
    return f"{error:.6f}" if error > 1e-3 else f"{error:.0e}"


def check_rows(shapes: Counter[Shape], case: Case) -> list[list[str]]:
    """All layers of a model merged at once, against what a sample says of them."""
    sample = Sample.of(list(shapes), case)
    whole = outcomes(Problem(all_of(shapes), case.count, case.rank), case.pairs, case.rounds)
    rows = []
    for way, outcome in whole.items():
        measured, extrapolated = median(outcome.seconds), median(sample.seconds(way, shapes))
        numbers = [short(seconds) for seconds in (measured, extrapolated)]
        rows.append([way.side, way.label, *numbers, f"{extrapolated / measured:.2f}"])
    return rows


def added_memory(way: Way, problem: Problem) -> int:
    """Most bytes that a merge holds beside the experts, its result included."""
    _ = problem.model, problem.profile  # made once, and not part of a merge
    resident = problem.factors()
    return PROFILED.peak(resident, lambda: way.run(problem)) - size_of(resident)


def memory(side: int, count: int, rank: int, ways: Sequence[Way]) -> list[int]:
    """Bytes of the experts' factors, of one dense update, and what each way adds to them.

    Args:
        side: of one square layer.
        count: number of experts.
        rank: of each.
        ways: to merge.
    """
    problem = Problem(one_of((side, side)), count, rank)
    dense = size_of([problem.total("layer_0").float()])
    return [size_of(problem.factors()), dense, *(added_memory(way, problem) for way in ways)]


def memory_rows() -> list[list[str]]:
    """MiB by size, and how they grow with the side of the layer."""
    found = {size: memory(*size, WEIGHED) for size in SIZES}
    rows = [
        [
            f"{side}",
            f"{count}",
            f"{rank}",
            *(f"{each / MIB:.2f}" for each in found[side, count, rank]),
        ]
        for side, count, rank in SIZES
    ]
    growth = [large / small for small, large in zip(found[SMALL], found[LARGE], strict=True)]
    title = f"{LARGE[0]} / {SMALL[0]}"
    return [*rows, [title, f"{LARGE[1]}", f"{LARGE[2]}", *(f"×{each:.1f}" for each in growth)]]


def sizes(shapes: Counter[Shape]) -> str:
    """``"2 of 320×768, …"``."""
    return ", ".join(f"{n} of {n_out}×{n_in}" for (n_out, n_in), n in sorted(shapes.items()))


def main() -> None:
    families = {family: attention_shapes(family) for family in FAMILIES}
    shapes = sorted(set().union(*families.values()))
    for family, counted in families.items():
        print(f"{family}: {counted.total()} attention layers (out×in): {sizes(counted)}")
    table(
        f"Merging all attention layers, {machine()}, seconds extrapolated from one of each shape",
        "model | experts | rank | output rank | ours | PEFT's | times faster | ours, s | PEFT's, s "
        "| error of ours | error of PEFT's",
        (row for case in CASES for row in time_rows(Sample.of(shapes, case), families)),
    )
    table(
        f"Check: all layers of {FAMILIES[0]} merged, {CHECK.count} experts of rank {CHECK.rank}",
        "side | way | measured, s | extrapolated, s | extrapolated / measured",
        check_rows(families[FAMILIES[0]], CHECK),
    )
    table(
        "Memory that merging one square layer takes beside the experts, MiB",
        "side | experts | rank | all factors | one dense ΔW | "
        + " | ".join(f"{way.side} {way.label}" for way in WEIGHED),
        memory_rows(),
    )


if __name__ == "__main__":
    main()
