"""CoProV2 as Parquet: pairs of images with a caption and the winner.

The columns are ``jpg_0, jpg_1, label_0, caption``; ``label_0 = 1`` says that ``jpg_0`` wins. A pair
occurs twice, under p_U and under p_S. Neither side of a pair nor its category are in the file: they
are found through the captions in the pairs of the CSV file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from safetydpo_kedro.images import is_image
from safetydpo_kedro.prompts.importers.schema import Intake, SourceRow
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS

COLUMNS = ("jpg_0", "jpg_1", "label_0", "caption")
IMAGE_COLUMNS = ["unsafe_image", "safe_image"]
BATCH_SIZE = 64


class Place(NamedTuple):
    """Where the images of a pair are: file, row group, row in it, column of the winner."""

    file: Path
    row_group: int
    row: int
    winner: str


class FoundPair(NamedTuple):
    """Place of the images of a pair, and the pair's position in its table."""

    place: Place
    position: int


def find_images(path: Path, pairs: pd.DataFrame, intake: Intake) -> list[FoundPair]:
    """Find the images of prompt pairs.

    Images are read in small batches, and only their hashes are kept.

    Args:
        path: a Parquet file, or a folder of them.
        pairs: the pairs of the CSV file, with ``PAIR_COLUMNS``.
        intake: counts the rows, and takes those that are not used.

    Raises:
        ValueError: no Parquet file, or one that lacks a column.
    """
    of_caption = _positions(pairs)
    partners: dict[tuple[bytes, bytes], dict[str, tuple[SourceRow, Place]]] = {}
    for row, place, images in _rows(path, intake):
        caption = row.values["caption"]
        captions = partners.setdefault(images, {})
        if caption not in of_caption:
            intake.reject(row, "caption", "unknown_caption")
        elif caption in captions:
            intake.reject(row, "caption", "duplicate_id")
        else:
            captions[caption] = row, place
    found = []
    for captions in partners.values():
        positions = _common(captions, of_caption)
        found += [FoundPair(place, i) for i in positions for _, place in [*captions.values()][:1]]
        for row, _ in captions.values() if not positions else ():
            intake.reject(row, "caption", "no_partner")
    return found


def plan_shards(
    found: Sequence[FoundPair], pairs: pd.DataFrame
) -> dict[str, Callable[[], pd.DataFrame]]:
    """A shard for each row group that holds any of the pairs; one without rows if none does.

    Returns:
        Shard → function that reads it: ``PAIR_COLUMNS`` and the images of both prompts, encoded
        as they are in the file.
    """
    groups: dict[tuple[Path, int], list[FoundPair]] = {}
    for pair in sorted(found):
        groups.setdefault((pair.place.file, pair.place.row_group), []).append(pair)
    plan = {
        f"{file.stem}-{group:05d}": partial(_read_shard, pairs, members)
        for (file, group), members in groups.items()
    }
    return plan or {"none": partial(pd.DataFrame, columns=[*PAIR_COLUMNS, *IMAGE_COLUMNS])}


def _positions(pairs: pd.DataFrame) -> dict[str, set[int]]:
    """Prompt → positions of the pairs that it belongs to."""
    positions: dict[str, set[int]] = {}
    for column in ("unsafe_prompt", "safe_prompt"):
        for position, prompt in enumerate(pairs[column]):
            positions.setdefault(prompt, set()).add(position)
    return positions


def _common(captions: dict[str, Any], of_caption: dict[str, set[int]]) -> list[int]:
    """Positions of the pairs whose both prompts are captions of the same two images."""
    if len(captions) < 2:
        return []
    return sorted(set.intersection(*(of_caption[caption] for caption in captions)))


def _rows(path: Path, intake: Intake) -> Iterator[tuple[SourceRow, Place, tuple[bytes, bytes]]]:
    """Rows with a winner and two images: row, its place, and hashes of winner and loser."""
    for file, number, group, index, entry in _entries(path):
        intake.rows += 1
        texts = {"caption": entry["caption"] or "", "label_0": str(entry["label_0"])}
        row = SourceRow(file.name, number, texts)
        images = [_encoded(entry[name]) for name in COLUMNS[:2]]
        if entry["label_0"] not in (0, 1):
            intake.reject(row, "label_0", "bad_label")
        elif not all(map(is_image, images)):
            intake.reject(row, None, "bad_image")
        else:
            winner = 0 if entry["label_0"] == 1 else 1
            hashes = [hashlib.sha256(image).digest() for image in images]
            place = Place(file, group, index, COLUMNS[winner])
            yield row, place, (hashes[winner], hashes[1 - winner])


def _entries(path: Path) -> Iterator[tuple[Path, int, int, int, dict[str, Any]]]:
    """File, number of the row in it, row group, number of the row there, and the row."""
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no .parquet files: put those of CoProV2 there")
    for file in files:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        if missing := [name for name in COLUMNS if name not in names]:
            raise ValueError(f"{file} lacks columns {missing}; it has {names}")
        number = 0
        for group in range(parquet.num_row_groups):
            batches = parquet.iter_batches(BATCH_SIZE, row_groups=[group], columns=list(COLUMNS))
            entries = (entry for batch in batches for entry in batch.to_pylist())
            for index, entry in enumerate(entries):
                number += 1
                yield file, number, group, index, entry


def _read_shard(pairs: pd.DataFrame, members: Sequence[FoundPair]) -> pd.DataFrame:
    """The pairs of one row group, with their images."""
    import pyarrow.parquet as pq

    file, group, *_ = members[0].place
    images = pq.ParquetFile(file).read_row_group(group, columns=list(COLUMNS[:2]))
    shard = pairs.iloc[[member.position for member in members]].reset_index(drop=True)
    for kind in ("unsafe", "safe"):
        encoded = []
        for name, (place, _) in zip(shard["pair_id"], members, strict=True):
            loser = next(column for column in COLUMNS[:2] if column != place.winner)
            column = place.winner if kind == "safe" else loser
            content = _encoded(images[column][place.row].as_py())
            encoded.append({"bytes": content, "path": f"{name}-{kind}.jpg"})
        shard[f"{kind}_image"] = encoded
    return shard


def _encoded(image: Any) -> bytes:
    """Bytes of an image, which stand alone or in a struct."""
    content = image.get("bytes") if isinstance(image, dict) else image
    return content if isinstance(content, bytes) else b""
