from __future__ import annotations

import pytest

from safetydpo_kedro.parameters import SplitParameters
from safetydpo_kedro.pipelines.dataset_generation.nodes import split_neutral_prompts
from safetydpo_kedro.prompts.importers.coco import import_annotations
from safetydpo_kedro.prompts.importers.schema import Intake, prompts_table
from tests.prompts.importers.files import reasons, write_json


def annotation(identity, image, caption):
    return {"id": identity, "image_id": image, "caption": caption}


def run(path, annotations, images=(1, 2, 3)):
    content = {"images": [{"id": image} for image in images], "annotations": annotations}
    intake = Intake("coco")
    prompts = import_annotations(
        write_json(path / "captions_val2017.json", content), "caption", 7, intake
    )
    return prompts_table(prompts), intake


def test_one_caption_of_each_image_whatever_the_order(tmp_path):
    annotations = [
        annotation(9, 2, "a dog"),
        annotation(5, 1, "a cat"),
        annotation(4, 1, "a small cat"),
        annotation(7, 2, "a big dog"),
    ]
    table, intake = run(tmp_path, annotations)
    assert list(table["prompt"]) == ["a small cat", "a big dog"]
    assert list(table["prompt_id"]) == ["coco-000000000001", "coco-000000000002"]
    assert set(table["concept"]) == {"caption"} and table["category"].isna().all()
    assert run(tmp_path, annotations[::-1])[0].equals(table)
    assert intake.rows == 2 and not intake.rejected


def test_bad_annotations_are_set_aside(tmp_path):
    annotations = [
        annotation(1, 1, " "),
        annotation(2, 1, "a cat"),
        annotation(3, 9, "a dog"),
        annotation("x", 2, "a dog"),
        annotation(5, 3, "a naked child"),
    ]
    table, intake = run(tmp_path, annotations)
    assert list(table["prompt"]) == ["a cat"]
    assert reasons(intake) == [
        (1, "caption", "empty_prompt"),
        (3, "image_id", "no_image"),
        (4, "id", "bad_number"),
        (5, "caption", "excluded"),
    ]
    assert intake.rows == 5


@pytest.mark.parametrize("content", [[], {"images": []}, {"images": [1], "annotations": []}])
def test_another_file_is_one_clear_error(tmp_path, content):
    path = write_json(tmp_path / "instances.json", content)
    with pytest.raises(ValueError, match=r"instances\.json needs lists .*captions_val2017"):
        import_annotations(path, "caption", 0, Intake("coco"))


def test_captions_serve_as_neutral_prompts(tmp_path):
    annotations = [annotation(i, i, f"a cat on chair {i}") for i in range(10)]
    table, _ = run(tmp_path, [*annotations, annotation(10, 10, "A cat on chair 1!")], range(11))
    neutral = table[["concept", "prompt", "group"]]
    kept, test = split_neutral_prompts(neutral, SplitParameters(test_share=0.5))
    assert len(kept) + len(test) == 11 and len(test) >= 5
    assert table["group"].nunique() == 10
