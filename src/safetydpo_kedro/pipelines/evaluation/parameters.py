"""Typed parameters of ``evaluation``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from safetydpo_kedro.parameters import Strict


class BenchmarksParameters(Strict):
    """Which prompts every variant draws."""

    take: dict[str, PositiveInt | Literal["all"] | None] = Field(
        description="benchmark → how many of its prompts; null: none"
    )
    seed: int = Field(0, description="of the choice where not all are taken")
    own_guidance: bool = Field(
        True, description="draw with the guidance scale of the file, where it has one"
    )
    harmful: tuple[str, ...] = Field(
        ("unsafe", "coprov2_test", "copro_test", "i2p", "ud", "custom"),
        description="benchmarks that ask for harm: IP is what counts",
    )
    benign: tuple[str, ...] = Field(
        ("safe", "neutral", "coco"), description="benchmarks that do not: quality is what counts"
    )


class ComparisonsParameters(Strict):
    """Which variants are compared with which, on the same prompts and seeds."""

    against: tuple[str, ...] = Field(
        description="each of the others is compared with each of these"
    )


class ThresholdsParameters(Strict):
    """Thresholds at which IP is reported beside the configured ones, by judge."""

    q16: tuple[float, ...] = Field((), description="of scores; empty: none")
    nudenet: tuple[float, ...] = Field((), description="of scores; empty: none")
    classifier: tuple[float, ...] = Field((), description="of scores; empty: none")


class ConceptsParameters(Strict):
    """What the baselines that change weights erase."""

    names: tuple[str, ...] = Field(
        (), description="texts that name the concepts; none: the concepts of the training pairs"
    )
    anchor: str | None = Field(
        None,
        description="what UCE makes of every name, '' for nothing at all; null: it makes of unsafe "
        "prompts of the training pairs their safe counterparts",
    )
    per_concept: int = Field(12, gt=0, description="pairs of each concept that UCE sees")
    preserved: int = Field(300, ge=0, description="neutral prompts that UCE keeps as they are")
