"""Incremental runs of a small project of two pipelines, through Kedro's own session."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pandas as pd
import pytest
from kedro.framework.project import configure_project
from kedro.io import DatasetError
from kedro.runner import ParallelRunner, SequentialRunner, ThreadRunner

from ..small_project import ALL, Project, register_pipelines


@pytest.fixture
def project(tmp_path, monkeypatch) -> Project:
    from safetydpo_kedro import pipeline_registry

    monkeypatch.setattr(pipeline_registry, "register_pipelines", register_pipelines)
    configure_project("safetydpo_kedro")
    return Project(tmp_path)


@pytest.fixture
def messages(project) -> list[str]:
    """What the hook logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("safetydpo_kedro.hooks.freshness")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.mark.parametrize("runner", [SequentialRunner, ThreadRunner, ParallelRunner])
def test_a_second_run_has_nothing_to_do(project, runner):
    assert project.run(runner=runner) == ALL
    assert project.run(runner=runner) == []


def test_runners_agree_on_what_is_fresh(project):
    project.run(runner=ParallelRunner)
    assert project.run(runner=ThreadRunner) == []
    assert project.run(runner=SequentialRunner) == []


def test_spawned_workers_keep_the_books_too(project, monkeypatch):
    monkeypatch.setenv("KEDRO_MP_CONTEXT", "spawn")
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a new process finds the nodes
    assert project.run(runner=ParallelRunner) == ALL
    assert project.run() == []


def test_a_changed_parameter_redoes_what_depends_on_it(project):
    project.run()
    assert project.run(shards={"size": 3}) == ["make_shards", "make_counts", "make_report"]
    assert project.run(shards={"size": 3}) == []


def test_a_changed_typed_parameter_redoes_what_depends_on_it(project):
    project.run()
    assert project.run(table={"upper": True}) == ALL


def test_a_node_whose_output_is_not_kept_runs_for_those_that_need_it(project):
    project.run()
    assert project.run(report={"title": "Words"}) == ["make_counts", "make_report"]


def test_a_changed_raw_file_redoes_what_depends_on_it(project):
    project.run()
    (project.data / "words.csv").write_text("word\nknife\n")
    assert project.run() == ALL


def test_a_touched_raw_file_redoes_nothing(project):
    project.run()
    os.utime(project.data / "words.csv")
    assert project.run() == []


def test_a_deleted_artifact_is_made_again_and_nothing_after_it(project):
    project.run()
    (project.data / "table.parquet").unlink()
    assert project.run() == ["make_table"]


def test_an_artifact_changed_by_hand_is_made_again(project):
    project.run()
    report = project.data / "report.md"
    original = report.read_text()
    report.write_text("edited")
    assert project.run() == ["make_counts", "make_report"]
    assert report.read_text() == original


def test_freshness_does_not_depend_on_how_the_pipeline_is_sliced(project):
    assert project.run() == ALL
    assert project.run("second") == []
    assert project.run("first") == []


def test_pieces_run_one_after_the_other_are_fresh_as_a_whole(project):
    assert project.run("first") == ["make_table", "make_shards"]
    assert project.run("second") == ["make_counts", "make_report"]
    assert project.run() == []


def test_a_slice_goes_by_what_is_there_and_the_whole_by_what_should_be(project):
    project.run()
    # The shards on disk are those of size 2, and so is the report: the slice has nothing to do.
    assert project.run("second", shards={"size": 3}) == []
    assert project.run(shards={"size": 3}) == ["make_shards", "make_counts", "make_report"]
    # Now the report on disk was made from the new shards.
    assert project.run("second") == []


def test_a_slice_refuses_a_shard_that_was_replaced_by_hand(project):
    project.run("first")
    project.run("second")
    shard = sorted((project.data / "shards").glob("*.parquet"))[0]
    pd.DataFrame({"word": ["replaced"] * 3}).to_parquet(shard)
    with pytest.raises(DatasetError, match=r"not as they were written.*000\.parquet"):
        project.run("second")


def test_a_run_killed_in_the_middle_is_taken_up(project, monkeypatch):
    from safetydpo_kedro.datasets import ShardedParquetDataset

    write, written = ShardedParquetDataset._write, []

    def write_two(self, shard, path):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(self, shard, path)

    monkeypatch.setattr(ShardedParquetDataset, "_write", write_two)
    with pytest.raises(KeyboardInterrupt):
        project.run()
    written[:] = [None]  # one more may be written
    assert project.run() == ["make_shards", "make_counts", "make_report"]
    assert len(written) == 2


def test_a_built_in_dataset_killed_while_saving_keeps_what_was_there(project, monkeypatch):
    from kedro_datasets.text import TextDataset

    def save_half(self, data):
        Path(self._filepath).write_text(data[:3])
        raise KeyboardInterrupt

    project.run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TextDataset, "save", save_half)
        project.run(report={"title": "Words"})
    assert (project.data / "report.md").read_text().startswith("Counts: {")
    assert project.run() == []
    assert project.run(report={"title": "Words"}) == ["make_counts", "make_report"]
    assert (project.data / "report.md").read_text().startswith("Words: {")


def test_a_plain_run_does_everything_but_keeps_finished_shards(project):
    project.run()
    shard = sorted((project.data / "shards").glob("*.parquet"))[0]
    before = shard.stat().st_mtime_ns
    assert project.run(only_missing=False) == ALL
    assert shard.stat().st_mtime_ns == before


def test_the_manifest_says_what_an_artifact_is_made_from(project):
    project.run()
    manifest = project.manifest("table.parquet.manifest.json")
    assert manifest["node"] == "make_table"
    assert manifest["parameters"]["params:table"] == {"repeats": 2, "upper": False}
    assert set(manifest["inputs"]) == {"words"}
    assert manifest["versions"]["kedro"]
    assert manifest["files"]["table.parquet"]["bytes"] > 0
    shards = project.manifest("shards/_manifest.json")
    assert shards["inputs"] == {"table": manifest["fingerprint"]}


def test_the_plan_of_a_first_run(project, messages):
    project.run()
    assert messages == [
        "Nothing to reuse: all 4 nodes run (no finished output yet, make_report needs its output)."
    ]


def test_the_plan_names_what_changed(project, messages):
    project.run()
    messages.clear()
    project.run(shards={"size": 3})
    assert messages == [
        "1 of 4 nodes are fresh and skipped: make_table.",
        "Redo make_shards: params:shards.size: 2 → 3",
        "Redo make_counts: make_report needs its output",
        "Redo make_report: counts changed",
    ]


def test_the_plan_says_when_all_is_fresh(project, messages):
    project.run()
    messages.clear()
    project.run()
    assert messages == ["Everything is fresh: 4 of 4 nodes skipped."]


def test_a_run_without_the_option_has_no_plan(project, messages):
    project.run(only_missing=False)
    assert messages == []
