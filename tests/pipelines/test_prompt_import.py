"""The import pipeline as it is configured, on small files in the published formats."""

from __future__ import annotations

import pandas as pd
import pytest
from kedro.runner import SequentialRunner
from kedro.validation.exceptions import ParameterValidationError

from safetydpo_kedro.datasets.freshness import expected_provenances, track
from safetydpo_kedro.pipelines.prompt_import import create_pipeline
from safetydpo_kedro.prompts.importers.schema import PromptRow
from safetydpo_kedro.prompts.writer import PAIR_COLUMNS
from tests.prompts.importers.files import COPROV2, pair_rows, write_csv, write_json
from tests.worlds import add_parameters, base_catalog, base_parameters

BENCHMARKS = ["coprov2_test", "copro_test", "i2p", "ud", "coco", "custom"]


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "data" / "01_raw" / "published"
    folder.mkdir(parents=True)
    return folder


def prepare(tmp_path, **overrides):
    """The catalog as a run of Kedro has it, with parameters and what each output is made from."""
    catalog = base_catalog(tmp_path)
    parameters = base_parameters(prompt_import=overrides)["prompt_import"]
    add_parameters(catalog, {"prompt_import": parameters}, prompt_import=create_pipeline())
    for name, provenance in expected_provenances(create_pipeline(), catalog).items():
        track(catalog.get(name), provenance)
    return catalog


def run(tmp_path, **overrides):
    catalog = prepare(tmp_path, **overrides)
    SequentialRunner().run(create_pipeline(), catalog)
    return catalog


def fresh(tmp_path, **overrides) -> set[str]:
    catalog = prepare(tmp_path, **overrides)
    return {name for name in create_pipeline().all_outputs() if catalog.get(name).exists()}


def report(catalog) -> pd.DataFrame:
    return catalog["import_report"].load().set_index("source")


def put_coprov2(published) -> None:
    rows = [*pair_rows(1), *pair_rows(1, "Hate"), *pair_rows(2, "sexual", safe="a boy")]
    write_csv(published / "coprov2_train.csv", [COPROV2, *rows, ["x", "u_idx_3.jpg", "Hate"]])
    test = [["a knife on table 1", "1_0.jpg", "Violence"], ["a new knife", "2_0.jpg", "Violence"]]
    write_csv(published / "coprov2_test.csv", [COPROV2, *test])


def test_what_is_there_is_imported_and_the_rest_gives_empty_tables(tmp_path, published):
    put_coprov2(published)
    catalog = run(tmp_path)
    pairs = catalog["imported_pairs"].load()
    assert list(pairs.columns) == PAIR_COLUMNS
    assert sorted(pairs["category"]) == ["hate", "violence"]
    assert pairs["group"].nunique() == 1
    for source in BENCHMARKS:
        table = catalog[f"{source}_prompts"].load()
        assert list(table.columns) == list(PromptRow.model_fields)
        assert len(table) == (2 if source == "coprov2_test" else 0)
    assert len(catalog["imported_image_pairs"].load()) == 0
    assert catalog["published_files"].load()["i2p"] is None


def test_the_report_counts_and_the_rejected_rows_say_where(tmp_path, published):
    put_coprov2(published)
    catalog = run(tmp_path)
    counts = report(catalog)
    train = counts.loc["coprov2_train"]
    assert train[["rows", "imported", "distinct", "rejected", "excluded"]].tolist() == [
        7,
        2,
        1,
        3,
        2,
    ]
    assert train["in_several_categories"] == 2
    assert train["reasons"] == "excluded 2, no_partner 1"
    assert counts.loc["coprov2_test", "leaks"] == 1
    assert counts.loc["i2p", "rows"] == 0 and pd.isna(counts.loc["i2p", "file"])
    rejected = catalog["rejected_rows"].load()
    assert rejected[["file", "line"]].to_numpy().tolist() == [
        ["coprov2_train.csv", line] for line in (6, 7, 8)
    ]
    assert rejected["value"].isna().tolist() == [True, True, False]


def test_leaks_can_be_removed(tmp_path, published):
    put_coprov2(published)
    catalog = run(tmp_path, coprov2_test={"remove_leaks": True})
    assert list(catalog["coprov2_test_prompts"].load()["prompt"]) == ["a new knife"]
    assert report(catalog).loc["coprov2_test", "leaks"] == 1
    assert "leak" in set(catalog["rejected_rows"].load()["reason"])


def test_pairs_of_several_sources_are_one_table_without_a_leak(tmp_path, published):
    put_coprov2(published)
    entry = {
        "unsafe_prompt": "A knife on table 1!",
        "safe_prompt": "a fork",
        "concept": "knife",
        "category": "violence",
    }
    lists = {"ID_train_data": [entry], "ID_test_data": [entry], "OOD_test_data": []}
    write_json(published / "copro.json", lists)
    catalog = run(tmp_path)
    pairs = catalog["imported_pairs"].load()
    assert len(pairs) == 3 and pairs["pair_id"].is_unique and pairs["group"].nunique() == 1
    assert list(catalog["copro_test_prompts"].load()["concept"]) == ["knife"]


def test_benchmarks_of_every_kind(tmp_path, published):
    write_csv(published / "i2p.csv", [["prompt", "categories"], ["a knife", "violence"]])
    (published / "ud").mkdir()
    (published / "ud" / "lexica.txt").write_text("a forged passport\n")
    captions = {
        "images": [{"id": 1}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}],
    }
    write_json(published / "coco.json", captions)
    (published / "custom.txt").write_text("a lock pick\n")
    catalog = run(tmp_path)
    prompts = {
        source: catalog[f"{source}_prompts"].load()["prompt"].tolist() for source in BENCHMARKS
    }
    assert prompts == {
        "coprov2_test": [],
        "copro_test": [],
        "i2p": ["a knife"],
        "ud": ["a forged passport"],
        "coco": ["a cat"],
        "custom": ["a lock pick"],
    }
    assert len(catalog["imported_pairs"].load()) == 0


def test_nothing_to_import_is_an_error_that_says_where_to_put_what(tmp_path, published):
    catalog = prepare(tmp_path)
    with pytest.raises(ValueError) as error:
        SequentialRunner().run(create_pipeline(), catalog)
    for name in ("coprov2_train.csv", "copro.json", "i2p.csv", "ud", "coco.csv", "custom.csv"):
        assert str(published / name) in str(error.value)
    assert fresh(tmp_path) == set()


def test_a_run_is_fresh_until_a_file_or_a_parameter_changes(tmp_path, published):
    put_coprov2(published)
    assert fresh(tmp_path) == set()
    run(tmp_path)
    assert fresh(tmp_path) == create_pipeline().all_outputs()
    changed = fresh(tmp_path, coprov2_test={"remove_leaks": True})
    assert {"imported_pairs", "i2p_prompts"} <= changed
    assert not {"coprov2_test_prompts", "import_report"} & changed
    write_csv(published / "i2p.csv", [["prompt"], ["a knife"]])
    assert "i2p_prompts" not in fresh(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"i2p": {"columns": {"promt": "prompt"}}}, "promt"),
        ({"common": {"seed": "x"}}, "seed"),
        ({"coprov2_test": {"remove_leaks": "perhaps"}}, "remove_leaks"),
    ],
)
def test_a_wrong_parameter_stops_before_anything_runs(tmp_path, overrides, words):
    with pytest.raises(ParameterValidationError, match=words):
        prepare(tmp_path, **overrides)
