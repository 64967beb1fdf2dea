"""Speed and memory of a training step: the project's recipes against the reference recipe.

Run ``python -m benchmarks.dpo_step``; it prints Markdown. All recipes (:mod:`benchmarks.recipes`)
train the same adapter on the same weights, pairs, noise and timesteps, each in a process of its
own. Each steps in turns with the reference recipe, so a busy machine slows both, and ratios are
medians over rounds. Two processes are alive at a time.

Speed-ups of a busy machine scatter; the operations that a step takes are counted, and do not. A
speed-up counts only if both compute the same losses in float32.

Without a CUDA device, SD 1.5 at 256 px stands for real models. With one, SD 1.5 and SDXL train in
bfloat16 at their own resolutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.models import PICTOGRAMS
from benchmarks.recipes import RECIPES
from benchmarks.tables import GIB, machine, name_of, table
from benchmarks.timing import in_turns, speedup
from benchmarks.worker import Setting, Step, Totals, Worker

REFERENCE = "reference"
# Relative, of losses in float32; bfloat16 rounds more than an adapter changes on random weights.
TOLERANCE = 1e-3
# Dense bfloat16 multiplications and additions per second, by part of the device's name.
PEAK_RATES = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
CPU_SETTINGS = (
    Setting(PICTOGRAMS, 32, pairs=1, rounds=20),
    Setting(PICTOGRAMS, 32, pairs=8, rounds=20),
    Setting("sd15", 256),
)
SD15 = Setting("sd15", 512, device="cuda", precision=torch.bfloat16, rounds=20)
SDXL = replace(SD15, model="sdxl", resolution=1024, checkpointing=True)
CUDA_SETTINGS = (
    *(replace(SD15, pairs=pairs) for pairs in (1, 4, 8)),
    *(replace(SDXL, pairs=pairs) for pairs in (1, 4, 8)),
)


class Comparison(NamedTuple):
    """A recipe and the reference recipe, in turns.

    Attributes:
        steps: of the recipe.
        reference_steps: in the same rounds.
        totals: of the recipe.
        reference_totals: of the reference recipe.
        preparation: seconds per pair of the recipe, once.
    """

    steps: list[Step]
    reference_steps: list[Step]
    totals: Totals
    reference_totals: Totals
    preparation: float

    @property
    def speedup(self) -> float:
        """How many times as many pairs per second as the reference recipe trains on."""
        return speedup(*([step.seconds for step in steps] for steps in self[:2]))

    @property
    def losses(self) -> tuple[list[float], list[float]]:
        """Of the recipe and of the reference recipe."""
        return [step.loss for step in self.steps], [step.loss for step in self.reference_steps]


def compare(recipe: str, setting: Setting) -> Comparison:
    """Train by a recipe and by the reference recipe, step by step in turns."""
    workers = {name: Worker(name, setting) for name in (recipe, REFERENCE)}
    steps = in_turns({name: worker.step for name, worker in workers.items()}, setting.rounds)
    totals = {name: worker.finish() for name, worker in workers.items()}
    preparation = workers[recipe].preparation
    return Comparison(
        steps[recipe], steps[REFERENCE], totals[recipe], totals[REFERENCE], preparation
    )


@cache
def float32_losses(recipe: str, setting: Setting) -> tuple[list[float], list[float]]:
    """Losses of some single pairs."""
    small = replace(setting, pairs=1, precision=torch.float32, rounds=4)
    return compare(recipe, small).losses


def comparable(losses: Sequence[float], reference: Sequence[float]) -> bool:
    """Whether two recipes computed the same losses, and losses that could have differed."""
    informative = any(abs(loss - math.log(2)) > 10 * TOLERANCE for loss in reference)
    return informative and disagreement(losses, reference) <= TOLERANCE


def disagreement(losses: Sequence[float], reference: Sequence[float]) -> float:
    """Largest relative difference of some losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True))


def rows(setting: Setting) -> list[list[str]]:
    """Rows of the table; the reference recipe's own numbers come from its first rounds."""
    found = {name: compare(name, setting) for name in RECIPES if name != REFERENCE}
    losses = {name: comparison.losses for name, comparison in found.items()}
    if setting.precision != torch.float32:
        losses = {name: float32_losses(name, replace(setting, pairs=1)) for name in found}
    return as_rows(setting, found, losses)


def as_rows(
    setting: Setting,
    found: Mapping[str, Comparison],
    losses: Mapping[str, tuple[list[float], list[float]]],
) -> list[list[str]]:
    """Cells of the table.

    Args:
        setting: what was trained.
        found: recipe → comparison.
        losses: recipe → losses in float32, and the reference recipe's.
    """
    case = [setting.model, str(setting.resolution), name_of(setting.precision), str(setting.pairs)]
    first = next(iter(found.values()))
    own = numbers(setting, first.reference_steps, first.reference_totals)
    table_rows = [[*case, REFERENCE, "1", "1", "1", "", *own, ""]]
    for name, comparison in found.items():
        totals, reference = comparison.totals, comparison.reference_totals
        table_rows.append(
            [
                *case,
                name,
                f"{comparison.speedup:.2f}" if comparable(*losses[name]) else "does not count",
                f"{reference.operations / totals.operations:.2f}",
                f"{totals.peak / reference.peak:.2f}",
                f"{disagreement(*losses[name]):.0e}",
                *numbers(setting, comparison.steps, comparison.totals),
                f"{comparison.preparation:.2f}" if name.startswith("project") else "",
            ]
        )
    return table_rows


def numbers(setting: Setting, steps: Sequence[Step], totals: Totals) -> list[str]:
    """Pairs per second, peak in GiB, 10¹² operations per pair, and those of the UNet per second."""
    seconds = median(step.seconds for step in steps)
    rate = totals.unet / seconds
    share = [rate / peak for name, peak in PEAK_RATES.items() if name in machine()]
    return [
        f"{setting.pairs / seconds:.3g}",
        f"{totals.peak / GIB:.2f}",
        f"{totals.operations / setting.pairs / 1e12:.3g}",
        f"{rate / 1e12:.3g}" + (f" ({share[0]:.0%})" if share else ""),
    ]


def main() -> None:
    settings = CUDA_SETTINGS if torch.cuda.is_available() else CPU_SETTINGS
    table(
        f"Training step, {machine()}",
        "model | pixels | precision | pairs | recipe | speed-up | times fewer operations | "
        "peak against reference | losses differ by | pairs/s | peak GiB | TFLOP per pair | "
        "UNet TFLOP/s (of the device's rate) | caches, s per pair, once",
        (row for setting in settings for row in rows(setting)),
    )


if __name__ == "__main__":
    main()
