from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.prompts.importers.reading import read_json, read_rows
from safetydpo_kedro.prompts.importers.schema import Intake
from tests.prompts.importers.files import csv_text, reasons, write_csv


def read(path, content: str | bytes, required=("prompt",), name="x.csv"):
    file = path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    intake = Intake("x")
    return list(read_rows(file, required, intake)), intake


def prompts(rows):
    return [row.values["prompt"] for row in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_any_line_ends_with_or_without_a_byte_order_mark(tmp_path, encoding, line_end):
    text = csv_text([["prompt", "id"], ["a café", "1"], ['say "hi", twice', "2"]], line_end)
    rows, intake = read(tmp_path, text.encode(encoding), ("prompt", "id"))
    assert prompts(rows) == ["a café", 'say "hi", twice']
    assert [row.line for row in rows] == [2, 3]
    assert intake.rows == 2 and not intake.rejected


def test_lines_are_those_of_the_file_although_prompts_hold_line_ends(tmp_path):
    rows, intake = read(tmp_path, 'prompt,id\n"one\ntwo\n\nthree",1\n\nfour,2\nfive\n')
    assert [(row.line, row.values["prompt"]) for row in rows] == [
        (2, "one\ntwo\n\nthree"),
        (7, "four"),
    ]
    assert reasons(intake) == [(8, None, "wrong_number_of_fields")]
    assert intake.rows == 3


def test_too_few_and_too_many_fields_are_set_aside(tmp_path):
    rows, intake = read(tmp_path, "prompt,id\na,1\nb\nc,2,3\nd,4\n")
    assert prompts(rows) == ["a", "d"]
    assert [row.value for row in intake.rejected] == ["b", "c,2,3"]
    assert {row.reason for row in intake.rejected} == {"wrong_number_of_fields"}


@pytest.mark.parametrize(
    ("broken", "line"),
    [('a,1\n"b,2\nc,3\nd,4\n', 3), ('a,1\n"b"x,2\nc,3\nd,4\n', 3), ('"z\na,1\nc,3\nd,4\n', 2)],
)
def test_a_broken_quote_costs_its_own_line_only(tmp_path, broken, line):
    rows, intake = read(tmp_path, "prompt,id\n" + broken)
    assert prompts(rows) == ["a", "c", "d"]
    assert reasons(intake) == [(line, None, "broken_quotes")]


def test_a_line_that_is_not_utf8_is_set_aside_and_can_be_shown(tmp_path):
    rows, intake = read(tmp_path, b"prompt\none\n" + b"caf\xe9\n" + "trois é\n".encode())
    assert prompts(rows) == ["one", "trois é"]
    assert reasons(intake) == [(3, "prompt", "not_utf8")]
    intake.rejected[0].value.encode()


def test_values_shown_are_cut_and_those_of_excluded_rows_withheld(tmp_path):
    _, intake = read(tmp_path, "prompt,category\n" + "x" * 500 + "\n" + "a girl: sexual\n")
    assert [row.value for row in intake.rejected] == ["x" * 80, None]
    assert [row.reason for row in intake.rejected] == ["wrong_number_of_fields", "excluded"]


def test_missing_columns_are_one_error_that_names_file_missing_and_found(tmp_path):
    with pytest.raises(
        ValueError, match=r"x\.csv lacks columns \['image'\].* has \['prompt', 'x'\]"
    ):
        read(tmp_path, "prompt,x\n1,2\n", ("prompt", "image"))
    with pytest.raises(ValueError, match=r"x\.csv has columns \['prompt'\] more than once"):
        read(tmp_path, "prompt,prompt\n1,2\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b" \n\n", "is empty"), ("prompt\nx".encode("utf-16"), "UTF-8")],
)
def test_files_that_are_no_text_are_errors(tmp_path, content, words):
    with pytest.raises(ValueError, match=words):
        read(tmp_path, content)


def test_a_text_file_has_a_prompt_in_every_line(tmp_path):
    rows, intake = read(tmp_path, "\ufeffone, two\n\n  three \n", name="4chan.txt")
    assert [(row.file, row.line, row.values) for row in rows] == [
        ("4chan.txt", 1, {"prompt": "one, two"}),
        ("4chan.txt", 3, {"prompt": "three"}),
    ]
    assert intake.rows == 2


def test_a_folder_is_read_file_by_file(tmp_path):
    (tmp_path / "b.txt").write_text("three\n")
    write_csv(tmp_path / "a.csv", [["prompt"], ["one"], ["two"]])
    (tmp_path / "notes.md").write_text("not a list")
    intake = Intake("x")
    rows = list(read_rows(tmp_path, ["prompt"], intake))
    assert [(row.file, row.line) for row in rows] == [("a.csv", 2), ("a.csv", 3), ("b.txt", 1)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files"):
        list(read_rows(tmp_path / "empty", ["prompt"], intake))


def test_json_that_is_not_json_is_one_clear_error(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1, 2')
    with pytest.raises(ValueError, match=r"x\.json is not JSON"):
        read_json(tmp_path / "x.json")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8))
def test_whatever_csv_writes_is_read_back(tmp_path_factory, table):
    text = csv_text([["prompt", "id"], *table])
    rows, intake = read(tmp_path_factory.mktemp("csv"), text, ("prompt", "id"))
    assert [tuple(row.values.values()) for row in rows] == table
    assert not intake.rejected


@given(st.binary(max_size=200))
def test_any_bytes_end_in_rows_or_in_rejections(tmp_path_factory, content):
    try:
        rows, intake = read(tmp_path_factory.mktemp("csv"), b"prompt,id\n" + content)
    except ValueError as error:
        assert b"\0" in content and "UTF-8" in str(error)
        return
    assert intake.rows == len(rows) + len(intake.rejected)
    lines = [*(row.line for row in rows), *(row.line for row in intake.rejected)]
    assert len(lines) == len(set(lines))
    for row in intake.rejected:
        assert row.value is None or len(row.value.encode()) >= 0


def test_a_field_of_any_length_is_one_row(tmp_path):
    long = "x" * (csv.field_size_limit() + 1)
    rows, intake = read(tmp_path, f"prompt,id\n{long},1\nb,2\n")
    assert prompts(rows) == ["b"]
    assert reasons(intake) == [(2, None, "broken_quotes")]
