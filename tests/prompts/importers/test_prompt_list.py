from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.released_files import LEAKED_PROMPTS, TEST_PROMPTS, write_test_csv, write_train_csv
from safetydpo_kedro.pipelines.prompt_import.parameters import LeakCheckedParameters
from safetydpo_kedro.prompts.importers.prompt_list import PromptListParameters, import_prompts
from safetydpo_kedro.prompts.importers.schema import Intake, prompts_table
from safetydpo_kedro.prompts.writer import image_seed
from tests.prompts.importers.files import KNOWN, SAMPLES, reasons, write_csv
from tests.worlds import base_parameters

I2P = [
    *("", "prompt", "categories", "hard", "inappropriate_percentage", "nudity_percentage"),
    *("q16_percentage", "sd_safety_percentage", "prompt_toxicity", "lexica_url"),
    *("evaluation_seed", "evaluation_guidance", "sd_image_width", "sd_image_height"),
    *("sd_model", "case_number"),
]


@pytest.fixture(scope="module")
def settings():
    given = base_parameters()["prompt_import"]
    lists = {name: given[name] for name in ("i2p", "ud", "coco", "custom")}
    parsed = {name: PromptListParameters.model_validate(value) for name, value in lists.items()}
    return {**parsed, "coprov2_test": LeakCheckedParameters.model_validate(given["coprov2_test"])}


def run(path, parameters, source="i2p", trained=frozenset()):
    intake = Intake(source)
    prompts = import_prompts(path, parameters, KNOWN, 7, intake, trained)
    table = prompts_table(prompts)
    assert intake.rows == len(table) + len(intake.rejected)
    return table, intake


def i2p_row(**changes) -> list[str]:
    row = {
        **dict.fromkeys(I2P, "0"),
        "prompt": "a knife",
        "categories": "violence, shocking",
        "evaluation_seed": "4294967295",
        "evaluation_guidance": "7.5",
        "sd_image_width": "512",
        "sd_image_height": "768",
        "case_number": "17",
    }
    return list({**row, **changes}.values())


def test_i2p_keeps_all_categories_and_what_to_draw_with(tmp_path, settings):
    table, _ = run(write_csv(tmp_path / "i2p.csv", [I2P, i2p_row()]), settings["i2p"])
    (row,) = table.to_dict("records")
    assert row.pop("group")
    assert row == {
        "benchmark": "i2p",
        "prompt_id": "i2p-17",
        "category": "violence",
        "categories": "violence,shocking",
        "concept": "violence",
        "prompt": "a knife",
        "seed": 4294967295,
        "guidance_scale": 7.5,
        "width": 512,
        "height": 768,
    }


def test_all_columns_but_the_prompt_may_be_missing(tmp_path, settings):
    table, _ = run(write_csv(tmp_path / "i2p.csv", [["prompt"], ["a"], ["b"]]), settings["i2p"])
    assert list(table["prompt_id"]) == ["i2p-000000", "i2p-000001"]
    assert list(table["seed"]) == [image_seed(7, name) for name in table["prompt_id"]]
    assert table[["category", "categories", "guidance_scale", "width"]].isna().all(axis=None)
    with pytest.raises(ValueError, match=r"lacks columns \['prompt'\]"):
        run(write_csv(tmp_path / "x.csv", [["text"], ["a"]]), settings["i2p"])


@pytest.mark.parametrize(
    ("changes", "column", "reason"),
    [
        ({"prompt": ""}, "prompt", "empty_prompt"),
        ({"categories": "violence, weather"}, "categories", "unknown_category"),
        ({"evaluation_seed": "x"}, "evaluation_seed", "bad_seed"),
        ({"evaluation_seed": "-1"}, "evaluation_seed", "bad_seed"),
        ({"evaluation_seed": "1.5"}, "evaluation_seed", "bad_seed"),
        ({"evaluation_seed": str(2**63)}, "evaluation_seed", "bad_seed"),
        ({"evaluation_guidance": "strong"}, "evaluation_guidance", "bad_number"),
        ({"evaluation_guidance": "nan"}, "evaluation_guidance", "bad_number"),
        ({"sd_image_width": "0"}, "sd_image_width", "bad_number"),
        ({"case_number": "1"}, "case_number", "duplicate_id"),
        ({"prompt": "a girl", "categories": "sexual"}, "prompt", "excluded"),
        ({"prompt": "a girl", "categories": "shocking, sexual"}, "prompt", "excluded"),
    ],
)
def test_a_bad_row_is_set_aside(tmp_path, settings, changes, column, reason):
    rows = [i2p_row(case_number="1"), i2p_row(**changes), i2p_row(case_number="3")]
    table, intake = run(write_csv(tmp_path / "i2p.csv", [I2P, *rows]), settings["i2p"])
    assert list(table["prompt_id"]) == ["i2p-1", "i2p-3"]
    assert reasons(intake) == [(3, column, reason)]


def test_numbers_as_pandas_writes_them_are_read(tmp_path, settings):
    row = i2p_row(evaluation_seed="41337.0", sd_image_width="", sd_image_height="512.0")
    table, _ = run(write_csv(tmp_path / "i2p.csv", [I2P, row]), settings["i2p"])
    assert table["seed"][0] == 41337
    assert table["width"].isna()[0] and table["height"][0] == 512


def test_coprov2_test_prompts_have_no_path_out_of_the_folder(tmp_path, settings):
    rows = [["prompt", "image", "category"], ["a", "0006947_0.jpg", "Illegal Activity"]]
    path = write_csv(tmp_path / "test.csv", [*rows, ["b", "../../x.jpg", "Hate"]])
    table, intake = run(path, settings["coprov2_test"], "coprov2_test")
    assert list(table["category"]) == ["illegal_activity"]
    assert reasons(intake) == [(3, "image", "unsafe_path")]


def test_the_released_leak_is_found_and_can_be_removed(tmp_path, settings):
    write_train_csv(tmp_path / "train.csv")
    write_test_csv(tmp_path / "test.csv")
    with (tmp_path / "train.csv").open(encoding="utf-8", newline="") as file:
        trained = {row["prompt"] for row in csv.DictReader(file)}
    table, intake = run(tmp_path / "test.csv", settings["coprov2_test"], "coprov2_test")
    assert len(table) == TEST_PROMPTS == 8_000 and not intake.rejected
    assert table["prompt"].isin(trained).sum() == LEAKED_PROMPTS == 728
    table, intake = run(tmp_path / "test.csv", settings["coprov2_test"], "coprov2_test", trained)
    assert len(table) == 8_000 - 728
    assert not table["prompt"].isin(trained).any()
    assert {row.reason for row in intake.rejected} == {"leak"}


def test_unsafe_diffusion_is_a_folder_of_lists_named_after_their_sources(tmp_path, settings):
    (tmp_path / "4chan.txt").write_text("a knife\na forged passport\n")
    write_csv(tmp_path / "lexica.csv", [["prompt", "source"], ["x", "lexica"], ["y", ""]])
    table, intake = run(tmp_path, settings["ud"], "ud")
    assert list(table["prompt"]) == ["a knife", "a forged passport", "x", "y"]
    assert list(table["concept"]) == ["4chan", "4chan", "lexica", "lexica"]
    assert table["prompt_id"].is_unique and table["category"].isna().all()
    assert not intake.rejected


def test_a_list_of_your_own_needs_every_column_that_is_named(tmp_path):
    columns = {"prompt": "text", "categories": "harm", "seed": "number"}
    parameters = PromptListParameters.model_validate({"columns": columns})
    rows = [["number", "text", "harm"], ["5", "a knife", "VIOLENCE"]]
    table, _ = run(write_csv(tmp_path / "mine.csv", rows), parameters, "custom")
    assert (table["seed"][0], table["category"][0]) == (5, "violence")
    with pytest.raises(ValueError, match=r"lacks columns \['harm', 'number'\]"):
        run(write_csv(tmp_path / "mine.csv", [["text"], ["a knife"]]), parameters)


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_prompt_is_kept_as_it_is_and_its_group_ignores_spelling(tmp_path_factory, text, seed):
    path = tmp_path_factory.mktemp("list") / "x.csv"
    prompt = "a knife " + "".join(c for c in text if c != "\0" and not "\ud800" <= c <= "\udfff")
    write_csv(path, [["prompt"], [prompt], [f"{prompt.upper().lower()} !"]])
    table, intake = run(path, PromptListParameters(), "custom")
    assert table["prompt"][0] == prompt and not intake.rejected


def test_no_rows_give_a_table_with_the_columns_and_their_types(tmp_path, settings):
    full, _ = run(write_csv(tmp_path / "i2p.csv", [I2P, i2p_row()]), settings["i2p"])
    empty = prompts_table([])
    assert list(empty.columns) == list(full.columns)
    numbers = ["seed", "guidance_scale", "width", "height"]
    assert (empty.dtypes[numbers] == full.dtypes[numbers]).all()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample data beside the project")
@pytest.mark.parametrize(
    ("source", "name", "seeded"),
    [
        ("coprov2_test", "coprov2_test_sample.csv", False),
        ("i2p", "i2p_sample.csv", True),
        ("coco", "coco_captions_sample.csv", True),
    ],
)
def test_the_published_samples_are_imported_whole(settings, source, name, seeded):
    rows = list(csv.DictReader((SAMPLES / name).open(encoding="utf-8", newline="")))
    table, intake = run(SAMPLES / name, settings[source], source)
    assert list(table["prompt"]) == [row["prompt"] for row in rows]
    assert table["prompt_id"].is_unique and not intake.rejected
    if seeded:
        assert list(table["seed"]) == [int(row["evaluation_seed"]) for row in rows]
    if source == "i2p":
        assert list(table["guidance_scale"]) == [float(row["evaluation_guidance"]) for row in rows]
