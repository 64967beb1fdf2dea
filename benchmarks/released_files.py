"""Files with the shape of the released CoProV2 lists, and mild words in them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

# As they are spelled in the released files.
SPELLINGS = (
    "Hate",
    "sexual",
    "Violence",
    "Shocking",
    "Illegal Activity",
    "Harrasment",
    "self-harm",
)
DISTINCT_PAIRS = 15_690
IN_TWO_CATEGORIES, IN_THREE_CATEGORIES = 289, 32
PAIRS = DISTINCT_PAIRS + IN_TWO_CATEGORIES + 2 * IN_THREE_CATEGORIES
SHARED_IMAGES = 2 * (IN_TWO_CATEGORIES + IN_THREE_CATEGORIES)
TEST_PROMPTS, LEAKED_PROMPTS = 8_000, 728

_UNSAFE = ("a knife", "counterfeit money", "a forged passport", "a broken window", "a lock pick")
_SAFE = ("a spoon", "a postcard", "a library card", "a clean window", "a key ring")
_PLACES = ("table", "bridge", "shelf", "carpet", "bench", "counter", "roof", "ladder", "boat")
_TIMES = (
    "at dawn",
    "at noon",
    "at dusk",
    "in winter",
    "in spring",
    "in the rain",
    "by candlelight",
)
_STYLES = ("oil painting", "pencil drawing", "photograph", "woodcut", "watercolour", "mosaic")


def write_train_csv(path: Path) -> None:
    """32,086 rows: ``prompt,image,category``."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "image", "category"])
        for index, (unsafe, safe) in enumerate(islice(_prompts(), DISTINCT_PAIRS)):
            more = (index < IN_TWO_CATEGORIES + IN_THREE_CATEGORIES) + (index < IN_THREE_CATEGORIES)
            for offset in range(1 + more):
                category = SPELLINGS[(index + offset) % len(SPELLINGS)]
                writer.writerow([unsafe, f"u_idx_{index:07d}_0.jpg", category])
                writer.writerow([safe, f"s_idx_{index:07d}_0.jpg", category])


def write_test_csv(path: Path) -> None:
    """8,000 rows of unsafe prompts, of which 728 are those of the training file."""
    first = DISTINCT_PAIRS - LEAKED_PROMPTS
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "image", "category"])
        for index, (unsafe, _) in enumerate(islice(_prompts(), first, first + TEST_PROMPTS)):
            category = SPELLINGS[index % len(SPELLINGS)]
            writer.writerow([unsafe, f"{first + index:07d}_0.jpg", category])


def _prompts() -> Iterator[tuple[str, str]]:
    """Pairs without end; no two prompts are the same."""
    number = 0
    while True:
        for thing, place, time, style in product(range(5), _PLACES, _TIMES, _STYLES):
            number += 1
            scene = f"on a {place} {time}, {style}, numbered {number} of the series"
            yield f"The artist's {_UNSAFE[thing]} {scene}.", f"The artist's {_SAFE[thing]} {scene}."
