"""CoProV2 as CSV: ``prompt,image,category``, a row for the unsafe and one for the safe prompt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.importers.categories import Categories
from safetydpo_kedro.prompts.importers.reading import read_rows
from safetydpo_kedro.prompts.importers.schema import Intake, PairRow, SourceRow, validated
from safetydpo_kedro.prompts.writer import image_seed

COLUMNS = ("prompt", "image", "category")
_IMAGE = re.compile(r"(?P<side>[us])_(?P<index>.+)\.[A-Za-z0-9]+")


class PairKey(NamedTuple):
    """What the two rows of a pair have in common."""

    category: str
    index: str


Sides = dict[str, SourceRow]


def import_pairs(path: Path, categories: Categories, seed: int, intake: Intake) -> list[PairRow]:
    """Bring the rows of the training file together in pairs, wherever they stand in it.

    Args:
        path: the CSV file.
        categories: those that are known.
        seed: of the image seeds.
        intake: takes the rows that are not used: both rows of an excluded pair, and those without
            a partner among them.

    Returns:
        The pairs, in the order in which their first rows stand in the file.

    Raises:
        ValueError: a column is missing.
    """
    found: dict[PairKey, Sides] = {}
    for row in read_rows(path, COLUMNS, intake):
        placed = _place(row, categories, intake)
        if placed is None:
            continue
        key, side = placed
        sides = found.setdefault(key, {})
        if side in sides:
            intake.reject(row, "image", "duplicate_id")
        else:
            sides[side] = row
    pairs = (_pair(key, sides, seed, intake) for key, sides in found.items())
    return [pair for pair in pairs if pair is not None]


def leaves_folder(image: str) -> bool:
    r"""Whether an image path may point out of the folder of the images.

    Example:
        >>> leaves_folder("u_idx_1.jpg"), leaves_folder("../u_idx_1.jpg"), leaves_folder("C:\\a")
        (False, True, True)
    """
    path = image.replace("\\", "/")
    return path.startswith("/") or ".." in path.split("/") or ":" in path


def images_in_several_categories(pairs: list[PairRow]) -> int:
    """How many images stand in the file under more than one category; each pair has two."""
    categories: dict[str, set[str]] = {}
    for pair in pairs:
        index = pair.pair_id.removeprefix(f"coprov2-{pair.category}-")
        categories.setdefault(index, set()).add(pair.category)
    return 2 * sum(len(names) > 1 for names in categories.values())


def _place(row: SourceRow, categories: Categories, intake: Intake) -> tuple[PairKey, str] | None:
    """Pair and side (``u`` or ``s``) of a row; sets it aside if it has none."""
    image = row.values["image"].strip()
    name = _IMAGE.fullmatch(image.replace("\\", "/").rpartition("/")[2])
    category = categories.find(row.values["category"])
    if not row.values["prompt"].strip():
        intake.reject(row, "prompt", "empty_prompt")
    elif category is None:
        intake.reject(row, "category", "unknown_category")
    elif leaves_folder(image):
        intake.reject(row, "image", "unsafe_path")
    elif name is None:
        intake.reject(row, "image", "bad_image_name")
    else:
        return PairKey(category, name["index"]), name["side"]
    return None


def _pair(key: PairKey, sides: Sides, seed: int, intake: Intake) -> PairRow | None:
    """The pair of two rows; sets aside one without a partner, and excluded ones."""
    if len(sides) == 1:
        intake.reject(*sides.values(), "image", "no_partner")
        return None
    unsafe, safe = sides["u"], sides["s"]
    prompts = unsafe.values["prompt"], safe.values["prompt"]
    if is_excluded(*prompts, category=key.category):
        for row in (unsafe, safe):
            intake.reject(row, "prompt", "excluded")
        return None
    name = f"coprov2-{key.category}-{key.index}"
    values = {
        "pair_id": name,
        "category": key.category,
        "concept": key.category,
        "unsafe_prompt": prompts[0],
        "safe_prompt": prompts[1],
        "seed": image_seed(seed, name),
    }
    return validated(PairRow, values, unsafe, intake)
