from __future__ import annotations

import csv
from itertools import product
from random import Random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.released_files import DISTINCT_PAIRS, PAIRS, SHARED_IMAGES, write_train_csv
from safetydpo_kedro.parameters import SplitParameters
from safetydpo_kedro.prompts.importers.coprov2 import images_in_several_categories, import_pairs
from safetydpo_kedro.prompts.importers.pairs import concatenate, group_pairs, import_table
from safetydpo_kedro.prompts.importers.schema import Intake, rejected_table
from safetydpo_kedro.prompts.split import normalise, split_prompts
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS, image_seed
from tests.prompts.importers.files import COPROV2, KNOWN, SAMPLES, pair_rows, reasons, write_csv


def run(path, rows):
    intake = Intake("coprov2_train")
    pairs = import_pairs(write_csv(path / "train.csv", [COPROV2, *rows]), KNOWN, 7, intake)
    assert intake.rows == len(rows) == 2 * len(pairs) + len(intake.rejected)
    return import_table(pairs), intake


def test_rows_become_pairs_wherever_they_stand(tmp_path):
    rows = [
        *pair_rows(1, "self-harm"),
        *pair_rows(2, "Harrasment"),
        *pair_rows(3, "Illegal Activity"),
    ]
    table, intake = run(tmp_path, Random(0).sample(rows, len(rows)))
    table = table.sort_values("pair_id", ignore_index=True)
    assert list(table.columns) == PAIR_COLUMNS
    assert list(table["category"]) == ["harassment", "illegal_activity", "self_harm"]
    assert list(table["concept"]) == list(table["category"])
    assert list(table["unsafe_prompt"]) == [f"a knife on table {i}" for i in (2, 3, 1)]
    assert list(table["safe_prompt"]) == [f"a spoon on table {i}" for i in (2, 3, 1)]
    assert table["pair_id"][0] == "coprov2-harassment-idx_2_0"
    assert list(table["seed"]) == [image_seed(7, name) for name in table["pair_id"]]
    assert not intake.rejected


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        (["", "u_idx_9_0.jpg", "Hate"], "prompt", "empty_prompt"),
        (["  ", "u_idx_9_0.jpg", "Hate"], "prompt", "empty_prompt"),
        (["a knife", "u_idx_9_0.jpg", "Weather"], "category", "unknown_category"),
        (["a knife", "u_idx_9_0.jpg", ""], "category", "unknown_category"),
        (["a knife", "../u_idx_9_0.jpg", "Hate"], "image", "unsafe_path"),
        (["a knife", "/data/u_idx_9_0.jpg", "Hate"], "image", "unsafe_path"),
        (["a knife", "..\\u_idx_9_0.jpg", "Hate"], "image", "unsafe_path"),
        (["a knife", "C:\\u_idx_9_0.jpg", "Hate"], "image", "unsafe_path"),
        (["a knife", "idx_9_0.jpg", "Hate"], "image", "bad_image_name"),
        (["a knife", "", "Hate"], "image", "bad_image_name"),
        (["a knife", "u_idx_9_0.jpg", "Hate"], "image", "no_partner"),
        (["a knife", "u_idx_1_0.jpg", "Violence"], "image", "duplicate_id"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_line_and_the_others_are_imported(
    tmp_path, row, column, reason
):
    table, intake = run(tmp_path, [*pair_rows(1), row, *pair_rows(2)])
    assert len(table) == 2
    assert reasons(intake) == [(4, column, reason)]
    assert rejected_table(intake.rejected)["value"][0] == row[COPROV2.index(column)]


def test_the_partner_of_a_bad_row_is_set_aside_too(tmp_path):
    first, second = pair_rows(1)
    table, intake = run(tmp_path, [first, ["", *second[1:]], *pair_rows(2)])
    assert len(table) == 1
    assert reasons(intake) == [(2, "image", "no_partner"), (3, "prompt", "empty_prompt")]


def test_both_rows_of_an_excluded_pair_are_set_aside_without_text(tmp_path):
    rows = pair_rows(1, "sexual", unsafe="a woman in a dress", safe="a teenager in a dress")
    table, intake = run(tmp_path, [*rows, *pair_rows(2, "sexual", unsafe="a woman", safe="a man")])
    assert len(table) == 1
    assert [(row.reason, row.value) for row in intake.rejected] == [("excluded", None)] * 2


def test_one_pair_may_stand_in_several_categories(tmp_path):
    rows = [*pair_rows(1, "Hate"), *pair_rows(1, "Violence"), *pair_rows(2, "Hate")]
    intake = Intake("x")
    pairs = import_pairs(write_csv(tmp_path / "x.csv", [COPROV2, *rows]), KNOWN, 0, intake)
    assert len({pair.pair_id for pair in pairs}) == 3
    assert images_in_several_categories(pairs) == 2
    assert not intake.rejected


def test_a_file_of_the_released_size_has_the_released_counts(tmp_path):
    write_train_csv(tmp_path / "train.csv")
    intake = Intake("coprov2_train")
    pairs = import_pairs(tmp_path / "train.csv", KNOWN, 0, intake)
    table = import_table(pairs)
    assert (intake.rows, len(table), PAIRS) == (32_086, 16_043, 16_043)
    distinct = table.drop_duplicates(["unsafe_prompt", "safe_prompt"])
    assert len(distinct) == DISTINCT_PAIRS == 15_690
    assert images_in_several_categories(pairs) == SHARED_IMAGES == 642
    assert not intake.rejected and table["pair_id"].is_unique


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample data beside the project")
def test_the_published_sample_is_imported_whole():
    path = SAMPLES / "coprov2_train_sample.csv"
    intake = Intake("coprov2_train")
    table = import_table(import_pairs(path, KNOWN, 0, intake))
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    expected = {
        kind: sorted(row["prompt"] for row in rows if row["image"].startswith(kind[0]))
        for kind in ("unsafe", "safe")
    }
    assert len(table) == len(rows) / 2 == 65
    assert sorted(table["unsafe_prompt"]) == expected["unsafe"]
    assert sorted(table["safe_prompt"]) == expected["safe"]
    counts = pd.Series([row["category"] for row in rows]).value_counts() / 2
    assert sorted(table["category"].value_counts()) == sorted(counts)
    assert not intake.rejected


PROMPTS = st.sampled_from(["a", "A.", "b", "c", "d", "e", "f"])


@given(st.lists(st.tuples(PROMPTS, PROMPTS), max_size=12))
def test_groups_are_the_connected_parts_of_shared_prompts(pairs):
    table = _pairs(pairs)
    everything = list(product(range(len(pairs)), repeat=2))
    reached = [{i} for i in range(len(pairs))]
    for _ in pairs:  # closes the relation "shares a prompt" step by step
        for i, j in everything:
            if any(map(_same, pairs[i], pairs[j])):
                reached[i] |= reached[j]
    groups = list(group_pairs(table)["group"])
    for i, j in everything:
        assert (groups[i] == groups[j]) == (j in reached[i])


def _same(prompt: str, other: str) -> bool:
    return normalise(prompt) == normalise(other)


def test_a_split_of_imported_pairs_does_not_leak(tmp_path):
    rows = [row for i in range(30) for row in pair_rows(i, unsafe=f"knife {i % 7}")]
    table = concatenate([run(tmp_path, rows)[0], _pairs([("knife 3", "spoon"), ("x", "y")])])
    assert table["pair_id"].is_unique
    train, test = split_prompts(table, ["unsafe_prompt", "safe_prompt"], SplitParameters())
    assert len(train) + len(test) == len(table) and len(test) > 0
    for column in ("unsafe_prompt", "safe_prompt"):
        assert not set(train[column]) & set(test[column])


def _pairs(pairs) -> pd.DataFrame:
    rows = [
        [f"pair-{i}", "violence", "violence", unsafe, safe, i, ""]
        for i, (unsafe, safe) in enumerate(pairs)
    ]
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)
