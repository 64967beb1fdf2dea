from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safetydpo_kedro.datasets import ShardedParquetDataset
from safetydpo_kedro.images import decode_images
from safetydpo_kedro.prompts.importers.coprov2 import import_pairs
from safetydpo_kedro.prompts.importers.coprov2_images import find_images, plan_shards
from safetydpo_kedro.prompts.importers.pairs import import_table
from safetydpo_kedro.prompts.importers.schema import Intake
from tests.prompts.importers.files import COPROV2, KNOWN, pair_rows, reasons, write_csv

COUNT = 6


def colour(number: int, safe: bool) -> tuple[int, int, int]:
    return (40 * number, 255 if safe else 0, 128)


def image(number: int, safe: bool) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour(number, safe)).save(buffer, format="PNG")
    return buffer.getvalue()


def row(number: int, caption: str, safe_first: bool = True) -> dict:
    return {
        "jpg_0": image(number, safe_first),
        "jpg_1": image(number, not safe_first),
        "label_0": 1 if safe_first else 0,
        "caption": caption,
    }


def rows_of(number: int) -> list[dict]:
    """Both rows of a pair, with the winner now on this side, now on that one."""
    return [
        row(number, f"a knife on table {number}", safe_first=number % 2 == 0),
        row(number, f"a spoon on table {number}", safe_first=number % 3 == 0),
    ]


def write_parquet(path, rows, row_group_size=5):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


@pytest.fixture
def pairs(tmp_path) -> pd.DataFrame:
    rows = [row for number in range(COUNT) for row in pair_rows(number)]
    path = write_csv(tmp_path / "train.csv", [COPROV2, *rows])
    return import_table(import_pairs(path, KNOWN, 0, Intake("coprov2_train")))


def run(path, pairs):
    intake = Intake("coprov2_images")
    found = find_images(path, pairs, intake)
    return found, plan_shards(found, pairs), intake


def test_both_images_of_each_pair_are_found_by_its_captions(tmp_path, pairs):
    rows = [row for number in range(COUNT) for row in rows_of(number)]
    found, plan, intake = run(write_parquet(tmp_path / "train.parquet", rows), pairs)
    assert len(found) == COUNT and intake.rows == 2 * COUNT and not intake.rejected
    assert len(plan) == 3  # row groups
    dataset = ShardedParquetDataset(
        path=str(tmp_path / "image_pairs"), image_columns=["unsafe_image", "safe_image"]
    )
    dataset.save(plan)
    table = dataset.load().sort_values("pair_id", ignore_index=True)
    pd.testing.assert_frame_equal(
        table[pairs.columns], pairs.sort_values("pair_id", ignore_index=True)
    )
    for kind in ("unsafe", "safe"):
        drawn = decode_images(table[f"{kind}_image"])[:, 0, 0]
        assert np.array_equal(drawn, [colour(number, kind == "safe") for number in range(COUNT)])
    assert table["safe_image"][0]["bytes"] == image(0, safe=True)


def test_images_in_structs_and_in_several_files_are_found_too(tmp_path, pairs):
    (tmp_path / "images").mkdir()
    for number in range(2):
        rows = rows_of(number)
        for entry in rows:
            entry |= {n: {"bytes": entry[n], "path": None} for n in ("jpg_0", "jpg_1")}
        write_parquet(tmp_path / "images" / f"part-{number}.parquet", rows)
    found, plan, intake = run(tmp_path / "images", pairs)
    assert len(found) == 2 and len(plan) == 2 and not intake.rejected
    shard = next(iter(plan.values()))()
    assert shard["safe_image"][0] == {
        "bytes": image(0, safe=True),
        "path": "coprov2-violence-idx_0_0-safe.jpg",
    }


@pytest.mark.parametrize(
    ("changes", "column", "reason"),
    [
        ({"caption": "a cloud"}, "caption", "unknown_caption"),
        ({"label_0": 0.5}, "label_0", "bad_label"),
        ({"label_0": None}, "label_0", "bad_label"),
        ({"jpg_0": b"no image"}, None, "bad_image"),
        ({"jpg_1": None}, None, "bad_image"),
        ({"caption": "a spoon on table 1"}, "caption", "duplicate_id"),
    ],
)
def test_a_bad_row_is_set_aside(tmp_path, pairs, changes, column, reason):
    rows = [*rows_of(0), *rows_of(1), {**rows_of(1)[1], **changes}]
    found, _, intake = run(write_parquet(tmp_path / "x.parquet", rows), pairs)
    assert len(found) == 2
    assert reasons(intake) == [(5, column, reason)]


def test_a_row_without_its_partner_is_set_aside(tmp_path, pairs):
    found, plan, intake = run(write_parquet(tmp_path / "x.parquet", rows_of(0)[:1]), pairs)
    assert found == [] and reasons(intake) == [(1, "caption", "no_partner")]
    (empty,) = plan.values()
    assert list(empty().columns) == [*pairs.columns, "unsafe_image", "safe_image"]


def test_without_pairs_no_caption_is_known(tmp_path, pairs):
    found, _, intake = run(write_parquet(tmp_path / "x.parquet", rows_of(0)), pairs.iloc[:0])
    assert found == []
    assert {row.reason for row in intake.rejected} == {"unknown_caption"}


def test_a_missing_column_or_file_is_an_error(tmp_path, pairs):
    rows = [{"jpg_0": b"", "caption": "x"}]
    with pytest.raises(ValueError, match=r"lacks columns \['jpg_1', 'label_0'\]"):
        run(write_parquet(tmp_path / "x.parquet", rows), pairs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.parquet files"):
        run(tmp_path / "empty", pairs)
