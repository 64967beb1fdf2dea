from __future__ import annotations

import pickle

import pytest
import torch
from kedro.io import DatasetError

from safetydpo_kedro.artifacts import Manifest, Provenance
from safetydpo_kedro.datasets import ShardedSafetensorsDataset
from safetydpo_kedro.datasets.sharded import KeyedPlan


class Planner:
    """Makes plans of one-row shards and counts which of them are computed."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.computed: list[str] = []
        self.fails_at = fails_at

    def shard(self, name: str) -> dict[str, torch.Tensor]:
        if name == self.fails_at:
            raise RuntimeError(f"killed at {name}")
        self.computed.append(name)
        return {"x": torch.tensor([float(name)])}

    def plan(self, *names: str):
        return {name: (lambda name=name: self.shard(name)) for name in names}


def open_shards(tmp_path, expected: str | None = "f1") -> ShardedSafetensorsDataset:
    dataset = ShardedSafetensorsDataset(path=str(tmp_path / "cache"))
    if expected:
        dataset.expect(Provenance(expected, "node"))
    return dataset


def values(dataset) -> list[float]:
    return dataset.load()["x"].tolist()


def test_shards_are_loaded_in_the_order_of_the_plan(tmp_path):
    dataset = open_shards(tmp_path)
    dataset.save(Planner().plan("2", "10", "1"))
    assert values(dataset) == [2, 10, 1]
    assert dataset.exists()


def test_a_plan_may_hold_ready_values(tmp_path):
    dataset = open_shards(tmp_path)
    dataset.save({"a": {"x": torch.ones(2)}, "b": {"x": torch.zeros(1)}})
    assert values(dataset) == [1, 1, 0]


def test_a_kill_leaves_whole_shards_only_and_nothing_that_exists(tmp_path):
    dataset = open_shards(tmp_path)
    with pytest.raises(DatasetError, match="killed at 3"):
        dataset.save(Planner(fails_at="3").plan("1", "2", "3", "4"))
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert names == ["1.safetensors", "2.safetensors", "_in_progress.json"]
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="incomplete"):
        dataset.load()


def test_a_kill_while_a_shard_is_written_leaves_no_partial_file(tmp_path, monkeypatch):
    def write_half(self, shard, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    dataset = open_shards(tmp_path)
    monkeypatch.setattr(ShardedSafetensorsDataset, "_write", write_half)
    with pytest.raises(KeyboardInterrupt):
        dataset.save(Planner().plan("1"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["_in_progress.json"]


def test_a_later_run_computes_only_what_is_missing(tmp_path):
    with pytest.raises(DatasetError):
        open_shards(tmp_path).save(Planner(fails_at="3").plan("1", "2", "3", "4"))
    dataset, planner = open_shards(tmp_path), Planner()
    dataset.save(planner.plan("1", "2", "3", "4"))
    assert planner.computed == ["3", "4"]
    assert values(dataset) == [1, 2, 3, 4]
    assert not (tmp_path / "cache" / "_in_progress.json").exists()


def test_half_done_shards_of_other_parameters_are_not_taken(tmp_path):
    with pytest.raises(DatasetError):
        open_shards(tmp_path, "f1").save(Planner(fails_at="2").plan("1", "2"))
    planner = Planner()
    open_shards(tmp_path, "f2").save(planner.plan("1", "2"))
    assert planner.computed == ["1", "2"]


def test_complete_shards_of_other_parameters_do_not_exist_and_are_made_again(tmp_path):
    open_shards(tmp_path, "f1").save(Planner().plan("1", "2"))
    dataset, planner = open_shards(tmp_path, "f2"), Planner()
    assert not dataset.exists()
    dataset.save(planner.plan("1", "2"))
    assert planner.computed == ["1", "2"]
    assert Manifest.read(dataset.manifest_path).provenance.fingerprint == "f2"


def test_without_a_known_fingerprint_nothing_is_used_again(tmp_path):
    open_shards(tmp_path, None).save(Planner().plan("1"))
    dataset, planner = open_shards(tmp_path, None), Planner()
    assert dataset.exists()
    dataset.save(planner.plan("1"))
    assert planner.computed == ["1"]


def test_a_deleted_shard_is_missed_and_made_again(tmp_path):
    dataset, planner = open_shards(tmp_path), Planner()
    dataset.save(Planner().plan("1", "2"))
    (tmp_path / "cache" / "1.safetensors").unlink()
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"lacks 1 of its 2 shards.*1\.safetensors"):
        dataset.load()
    dataset.save(planner.plan("1", "2"))
    assert planner.computed == ["1"]


def test_a_damaged_shard_is_made_again(tmp_path):
    dataset, planner = open_shards(tmp_path), Planner()
    dataset.save(Planner().plan("1", "2"))
    (tmp_path / "cache" / "2.safetensors").write_bytes(b"damaged")
    assert not dataset.exists()
    dataset.save(planner.plan("1", "2"))
    assert planner.computed == ["2"]


def test_shards_that_left_the_plan_are_removed(tmp_path):
    dataset = open_shards(tmp_path)
    dataset.save(Planner().plan("1", "2"))
    dataset.save(Planner().plan("2"))
    assert values(dataset) == [2]
    assert not (tmp_path / "cache" / "1.safetensors").exists()


def test_files_of_others_are_never_removed(tmp_path):
    theirs = tmp_path / "cache" / "theirs.safetensors"
    theirs.parent.mkdir()
    theirs.write_bytes(b"precious")
    with pytest.raises(DatasetError, match="not written as shards"):
        open_shards(tmp_path).save(Planner().plan("1"))
    assert theirs.read_bytes() == b"precious"


def test_loading_before_saving_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="not there: run the node"):
        open_shards(tmp_path).load()


@pytest.mark.parametrize(
    ("plan", "message"),
    [({}, "no shards"), ({"../up": {}}, "'../up'"), ({".hidden": {}}, "'.hidden'")],
)
def test_bad_plans_are_refused(tmp_path, plan, message):
    with pytest.raises(DatasetError, match=message):
        open_shards(tmp_path).save(plan)


def test_shards_with_different_names_inside_are_refused(tmp_path):
    dataset = open_shards(tmp_path)
    dataset.save({"1": {"x": torch.ones(1)}, "2": {"y": torch.ones(1)}})
    with pytest.raises(DatasetError, match=r"holds \['y'\]"):
        dataset.load()


def test_the_expectation_travels_to_other_processes(tmp_path):
    open_shards(tmp_path, "f1").save(Planner().plan("1"))
    assert pickle.loads(pickle.dumps(open_shards(tmp_path, "f1"))).exists()
    assert not pickle.loads(pickle.dumps(open_shards(tmp_path, "f2"))).exists()


def test_mapped_shards_are_read_row_by_row(tmp_path):
    shards = {f"{i}": {"x": torch.full((2, 3), float(i))} for i in range(3)}
    path = str(tmp_path / "cache")
    ShardedSafetensorsDataset(path=path).save(shards)
    mapped = ShardedSafetensorsDataset(path=path, mapped=True).load()["x"]
    joined = ShardedSafetensorsDataset(path=path).load()["x"]
    rows = torch.tensor([5, 0, 3])
    assert mapped.shape == joined.shape
    assert torch.equal(mapped[rows], joined[rows])


def keyed(planner: Planner, **keys: str) -> KeyedPlan:
    """Shards ``s<i>`` that depend on the argument ``rows`` only through their keys."""
    names = list(keys)
    return KeyedPlan(
        {n: (lambda n=n: planner.shard(n.removeprefix("s"))) for n in names}, keys, ("rows",)
    )


def given(rows: str, model: str = "m", code: str = "c") -> Provenance:
    arguments = {"rows": rows, "model": model}
    return Provenance(f"{rows}-{model}-{code}", "node", arguments=arguments, code=code)


def open_keyed(tmp_path, provenance: Provenance) -> ShardedSafetensorsDataset:
    dataset = open_shards(tmp_path, expected=None)
    dataset.expect(provenance)
    return dataset


def test_of_a_keyed_plan_only_shards_with_other_rows_are_computed_again(tmp_path):
    open_keyed(tmp_path, given("a")).save(keyed(Planner(), s1="x", s2="y", s3="z"))
    dataset, planner = open_keyed(tmp_path, given("b")), Planner()
    assert not dataset.exists()  # the whole is stale though most of it is not
    dataset.save(keyed(planner, s2="y", s1="other", s4="w"))
    assert planner.computed == ["1", "4"]
    assert values(dataset) == [2, 1, 4] and dataset.exists()


def test_shards_that_a_keyed_plan_does_not_name_wait_for_one_that_does(tmp_path):
    open_keyed(tmp_path, given("a")).save(keyed(Planner(), s1="x", s2="y"))
    dataset = open_keyed(tmp_path, given("b"))
    dataset.save(keyed(Planner()))  # leave all out, and again
    open_keyed(tmp_path, given("c")).save(keyed(Planner()))
    planner = Planner()
    dataset = open_keyed(tmp_path, given("d"))
    dataset.save(keyed(planner, s1="x", s2="changed", s3="z"))
    assert planner.computed == ["2", "3"] and values(dataset) == [1, 2, 3]
    open_keyed(tmp_path, given("e", model="n")).save(keyed(Planner()))
    planner = Planner()
    open_keyed(tmp_path, given("f", model="n")).save(keyed(planner, s1="x"))
    assert planner.computed == ["1"]  # of another model: it was kept, and is not used


def test_a_kept_shard_survives_a_kill(tmp_path):
    open_keyed(tmp_path, given("a")).save(keyed(Planner(), s1="x"))
    with pytest.raises(DatasetError, match="killed at 2"):
        open_keyed(tmp_path, given("b")).save(keyed(Planner(fails_at="2"), s2="y"))
    planner = Planner()
    open_keyed(tmp_path, given("c")).save(keyed(planner, s1="x"))
    assert planner.computed == []


def test_an_ordinary_plan_removes_what_it_does_not_name(tmp_path):
    open_shards(tmp_path).save(Planner().plan("1", "2"))
    open_shards(tmp_path).save(Planner().plan("1"))
    assert [p.name for p in sorted((tmp_path / "cache").glob("*.safetensors"))] == ["1.safetensors"]


@pytest.mark.parametrize("changed", [given("a", model="n"), given("a", code="d")])
def test_of_a_keyed_plan_all_shards_are_stale_if_anything_else_changes(tmp_path, changed):
    open_keyed(tmp_path, given("a")).save(keyed(Planner(), s1="x", s2="y"))
    planner = Planner()
    open_keyed(tmp_path, changed).save(keyed(planner, s1="x", s2="y"))
    assert planner.computed == ["1", "2"]


def test_a_keyed_plan_resumes_after_a_kill(tmp_path):
    with pytest.raises(DatasetError, match="killed at 2"):
        open_keyed(tmp_path, given("a")).save(keyed(Planner(fails_at="2"), s1="x", s2="y"))
    planner = Planner()
    open_keyed(tmp_path, given("b")).save(keyed(planner, s1="x", s2="y"))
    assert planner.computed == ["2"]


def test_of_unknown_provenance_a_keyed_plan_reuses_nothing(tmp_path):
    for _ in range(2):
        planner = Planner()
        open_shards(tmp_path, expected=None).save(keyed(planner, s1="x"))
        assert planner.computed == ["1"]


def test_shares_fill_a_folder_together(tmp_path):
    """Every share computes its own shards; who comes last completes the folder."""
    names = ["000", "001", "002", "003", "004"]
    first, second = Planner(), Planner()
    whole = ShardedSafetensorsDataset(path=str(tmp_path / "shards"))
    whole.expect(Provenance("f" * 64))

    whole.share(1, 2).save(second.plan(*names))
    assert second.computed == ["001", "003"]
    assert not whole.exists()
    whole.share(0, 2).save(first.plan(*names))
    assert first.computed == ["000", "002", "004"]
    assert whole.load()["x"].tolist() == [0, 1, 2, 3, 4]
    manifest = whole.manifest_path.read_bytes()

    again = Planner()  # a worker was lost after it had done its share
    whole.share(0, 2).save(again.plan(*names))
    whole.save(again.plan(*names))
    assert again.computed == []
    assert whole.manifest_path.read_bytes() == manifest


def test_a_whole_save_completes_what_shares_left(tmp_path):
    whole = ShardedSafetensorsDataset(path=str(tmp_path / "shards"))
    whole.expect(Provenance("f" * 64))
    planner = Planner()
    whole.share(2, 3).save(planner.plan("000", "001", "002", "003"))
    assert planner.computed == ["002"]
    whole.save(planner.plan("000", "001", "002", "003"))
    assert planner.computed == ["002", "000", "001", "003"]
    assert whole.load()["x"].tolist() == [0, 1, 2, 3]
