from __future__ import annotations

import pytest

from safetydpo_kedro.prompts.importers.copro import import_pairs, import_prompts
from safetydpo_kedro.prompts.importers.schema import Intake
from tests.prompts.importers.files import KNOWN, reasons, write_csv, write_json

COLUMNS = ["unsafe_prompt", "safe_prompt", "concept", "category"]


def entry(number: int, **changes) -> dict:
    values = [f"a knife {number}", f"a spoon {number}", "knife", "violence"]
    return {**dict(zip(COLUMNS, values, strict=True)), **changes}


def content(**sections) -> dict:
    empty = {"ID_train_data": [], "ID_test_data": [], "OOD_test_data": []}
    return {"ID_concepts": ["knife"], "concept_synonym": {}, **empty, **sections}


def test_sections_become_pairs_and_tests(tmp_path):
    train = [entry(1), entry(2, category="illegal activity", concept="counterfeit money")]
    path = write_json(
        tmp_path / "copro.json", content(ID_train_data=train, OOD_test_data=[entry(3)])
    )
    pairs = import_pairs(path, ["ID_train_data"], KNOWN, 0, intake := Intake("copro"))
    assert [(pair.category, pair.concept) for pair in pairs] == [
        ("violence", "knife"),
        ("illegal_activity", "counterfeit money"),
    ]
    assert [(pair.unsafe_prompt, pair.safe_prompt) for pair in pairs] == [
        ("a knife 1", "a spoon 1"),
        ("a knife 2", "a spoon 2"),
    ]
    assert intake.rows == 2 and not intake.rejected
    sections = ["ID_test_data", "OOD_test_data"]
    (prompt,) = import_prompts(path, sections, KNOWN, 0, Intake("copro_test"))
    assert prompt.prompt == "a knife 3"
    assert prompt.prompt_id == "copro_test-OOD_test_data-000001"
    assert (prompt.category, prompt.concept) == ("violence", "knife")


def test_the_same_table_as_csv(tmp_path):
    rows = [list(entry(1).values()), list(entry(2).values())]
    path = write_csv(tmp_path / "copro.csv", [COLUMNS, *rows])
    pairs = import_pairs(path, ["ID_train_data"], KNOWN, 0, Intake("copro"))
    assert [pair.pair_id for pair in pairs] == ["copro-csv-000002", "copro-csv-000003"]
    assert import_prompts(path, ["ID_test_data"], KNOWN, 0, Intake("x")) == []


@pytest.mark.parametrize(
    ("bad", "column", "reason"),
    [
        (entry(2, unsafe_prompt=" "), "unsafe_prompt", "empty_prompt"),
        (entry(2, safe_prompt=None), "safe_prompt", "empty_prompt"),
        (entry(2, concept=""), "concept", "empty_concept"),
        (entry(2, category="weather"), "category", "unknown_category"),
        (entry(2, safe_prompt="a\ud800b"), "safe_prompt", "not_utf8"),
        (entry(2, safe_prompt="a naked child"), "unsafe_prompt", "excluded"),
        (entry(2, unsafe_prompt="a boy", category="sexual"), "unsafe_prompt", "excluded"),
        ("a knife", None, "not_an_object"),
    ],
)
def test_bad_entries_are_set_aside_by_their_number(tmp_path, bad, column, reason):
    path = write_json(tmp_path / "copro.json", content(ID_train_data=[entry(1), bad, entry(3)]))
    intake = Intake("copro")
    assert len(import_pairs(path, ["ID_train_data"], KNOWN, 0, intake)) == 2
    assert reasons(intake) == [(2, column, reason)]
    assert (intake.rejected[0].value is None) == (reason == "excluded")
    assert intake.rows == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": []}, r"needs lists \['ID_train_data'\], found \['train'\]"),
        ([1, 2], "found"),
        (content(ID_train_data={"a": 1}), "needs lists"),
        (content(ID_train_data=[{"prompt": "x"}]), r"lacks \['unsafe_prompt'.* has \['prompt'\]"),
    ],
)
def test_another_shape_is_one_error_that_says_what_was_found(tmp_path, given, words):
    path = write_json(tmp_path / "copro.json", given)
    with pytest.raises(ValueError, match=words):
        import_pairs(path, ["ID_train_data"], KNOWN, 0, Intake("copro"))


def test_a_csv_without_the_columns_is_an_error(tmp_path):
    path = write_csv(tmp_path / "copro.csv", [["prompt", "category"], ["a knife", "violence"]])
    with pytest.raises(ValueError, match=r"lacks columns .*unsafe_prompt.* has \['prompt'"):
        import_pairs(path, [], KNOWN, 0, Intake("copro"))
