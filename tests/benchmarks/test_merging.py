"""Both sides merge the same experts to the same rank, and the tables say what was measured."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks import merging
from benchmarks.merging import (
    Case,
    Sample,
    check_rows,
    error_cell,
    memory,
    time_rows,
)
from benchmarks.merging_problem import MERGED, Problem, all_of, attention_shapes, one_of
from benchmarks.merging_ways import (
    ALL,
    CAT,
    CO_MERGE,
    KNOTS,
    PEFT_CAT,
    PEFT_SVD,
    PEFT_THIN,
    PEFT_TIES,
    PEFT_TIES_SVD,
    SVD,
    SVD32,
    TIES,
    TIES32,
    TSV,
    Outcome,
    outcomes,
)

COUNT, RANK = 3, 2
SHAPES = Counter({(12, 20): 2, (16, 16): 1})
WAYS = list(dict.fromkeys(way for pair in ALL for way in pair))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(all_of(SHAPES), COUNT, RANK)


@pytest.fixture(scope="module")
def found(problem) -> dict:
    return outcomes(problem, ALL, rounds=1)


@pytest.mark.parametrize(("family", "blocks"), [("sd15", 16), ("sdxl", 70)])
def test_layers_are_those_of_all_attention_blocks(family, blocks):
    """Four projections each of self- and cross-attention, two of which read the text."""
    text = {"sd15": 768, "sdxl": 2048}[family]
    shapes = attention_shapes(family)
    assert shapes.total() == 8 * blocks
    assert sum(n for (_, n_in), n in shapes.items() if n_in == text) == 2 * blocks


def test_targets_are_their_definitions(problem):
    for name, shape in problem.shapes.items():
        updates = [expert.layers[name].delta() for expert in problem.experts.values()]
        torch.testing.assert_close(problem.total(name).float(), sum(updates))
        owners = problem.owners[name].tolist()
        rows = torch.stack([updates[owner][row] for row, owner in enumerate(owners)])
        torch.testing.assert_close(problem.owned_rows(name).float(), rows)
        assert set(owners) == set(range(COUNT))
        assert problem.ties(name).shape == shape


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.side} {way.label}")
def test_results_have_the_rank_that_the_table_says(problem, way):
    layers = way.run(problem).result
    assert set(layers) == set(problem.shapes)
    assert {layer.rank for layer in layers.values()} == {way.output_rank(COUNT, RANK)}
    assert {name: layer.weight_shape for name, layer in layers.items()} == problem.shapes


def test_compared_ways_have_one_rank():
    assert all(a.output_rank(7, 4) == b.output_rank(7, 4) for a, b in ALL)
    assert all((a.side, b.side) == ("ours", "peft") for a, b in ALL)


def error(outcome: Outcome) -> float:
    return (outcome.gap / outcome.size) ** 0.5


@pytest.mark.parametrize("way", [CAT, CO_MERGE, PEFT_CAT])
def test_stacked_factors_are_exact(found, way):
    assert error(found[way]) < 1e-6


@pytest.mark.parametrize("way", [SVD, SVD32, PEFT_SVD, PEFT_THIN])
def test_svd_has_the_error_of_the_singular_values_that_it_drops(problem, found, way):
    values = [torch.linalg.svdvals(problem.total(name)) for name in problem.shapes]
    dropped, all_values = torch.cat([s[RANK:] for s in values]), torch.cat(values)
    assert error(found[way]) == pytest.approx((dropped.norm() / all_values.norm()).item(), rel=1e-5)


@pytest.mark.parametrize("way", [TIES, TIES32, PEFT_TIES_SVD])
def test_ties_has_the_error_of_the_singular_values_that_it_drops(problem, found, way):
    values = [torch.linalg.svdvals(problem.ties(name)) for name in problem.shapes]
    dropped, all_values = torch.cat([s[RANK:] for s in values]), torch.cat(values)
    # PEFT keeps ⌊density · n⌋ entries, the project the nearest number.
    assert error(found[way]) == pytest.approx((dropped.norm() / all_values.norm()).item(), rel=0.05)
    assert error(found[PEFT_TIES]) > error(found[way]) + 0.1


def test_ways_without_a_target_have_no_error(found):
    assert (found[TSV].gap, found[KNOTS].size) == (None, None)
    assert error_cell(None) == ""


def test_every_merge_of_peft_is_a_new_one():
    problem = Problem(one_of((12, 20)), COUNT, RANK)
    first = PEFT_CAT.run(problem).result["layer_0"]
    assert MERGED not in problem.model.peft_config
    assert torch.equal(PEFT_CAT.run(problem).result["layer_0"].delta(), first.delta())
    for factor in problem.factors():
        factor.mul_(2)
    again = PEFT_CAT.run(problem).result["layer_0"]
    torch.testing.assert_close(again.delta(), 4 * first.delta())


def by_hand() -> Sample:
    """Two rounds; the second shape takes ten times as long, and PEFT twice and four times."""
    ours = Outcome((1.0, 2.0), gap=1.0, size=4.0)
    peft = Outcome((2.0, 8.0), gap=2.0, size=4.0)
    slow = Outcome((10.0, 20.0), gap=0.0, size=5.0)
    slower = Outcome((20.0, 80.0), gap=0.0, size=5.0)
    return Sample(
        Case(7, 4, ((SVD, PEFT_SVD),), rounds=2),
        {(2, 2): {SVD: ours, PEFT_SVD: peft}, (4, 4): {SVD: slow, PEFT_SVD: slower}},
    )


def test_a_shape_counts_as_often_as_it_occurs():
    sample, shapes = by_hand(), Counter({(2, 2): 5, (4, 4): 1})
    assert sample.seconds(SVD, shapes) == [15.0, 30.0]
    assert sample.error(SVD, shapes) == pytest.approx((5 / 25) ** 0.5)
    [row] = time_rows(sample, {"model": shapes})
    assert row[:4] == ["model", "7", "4", "4"]
    assert row[6:] == ["3", "22.5", "75", "0.447214", "0.632456"]


def test_a_sample_is_compared_with_the_whole_model():
    rows = check_rows(SHAPES, Case(COUNT, RANK, ((CAT, PEFT_CAT),), rounds=1))
    assert [row[:2] for row in rows] == [["ours", "cat"], ["peft", "cat"]]
    for *_, measured, extrapolated, ratio in rows:
        assert float(ratio) == pytest.approx(float(extrapolated) / float(measured), abs=0.02)


FACTORED = (CAT, CO_MERGE, SVD, TSV)
DENSE = (TIES, PEFT_SVD, PEFT_TIES_SVD)


def test_memory_of_factored_merges_grows_with_the_side_and_not_with_its_square():
    ways = (*FACTORED, KNOTS, *DENSE)
    small, large = (memory(side, COUNT, RANK, ways) for side in (64, 256))
    factors, dense, *growth = [after / before for before, after in zip(small, large, strict=True)]
    assert (factors, dense) == (4, 16)
    assert growth[:5] == pytest.approx([4] * 5, rel=0.1)
    assert all(each > 12 for each in growth[5:])
    assert all(peak < large[1] for peak in large[2:6])  # not even one dense update


def test_memory_of_factored_merges_grows_with_the_sum_of_ranks():
    some, more = (memory(256, count, RANK, FACTORED) for count in (2, 4))
    # TSV has E cores of side Σr beside, which are small here.
    assert [after / before for before, after in zip(some, more, strict=True)] == pytest.approx(
        [2, 1, 2, 2, 2, 2], rel=0.15
    )


def test_tables_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(merging, "attention_shapes", lambda family: SHAPES)
    monkeypatch.setattr(merging, "CASES", (Case(COUNT, RANK, ALL, rounds=1),))
    monkeypatch.setattr(merging, "CHECK", Case(COUNT, RANK, rounds=1))
    monkeypatch.setattr(merging, "SIZES", ((8, 2, 1), (16, 2, 1)))
    monkeypatch.setattr(merging, "SMALL", (8, 2, 1))
    monkeypatch.setattr(merging, "LARGE", (16, 2, 1))
    merging.main()
    lines = capsys.readouterr().out.splitlines()
    assert "sdxl: 3 attention layers (out×in): 2 of 12×20, 1 of 16×16" in lines
    tables = [line for line in lines if line.startswith("|")]
    starts = [number for number, line in enumerate(tables) if line.startswith("|---")]
    assert len(starts) == 3
    for header, start in zip((tables[n - 1] for n in starts), starts, strict=True):
        assert tables[start + 1].count("|") == header.count("|")
    assert tables[-1].startswith("| 16 / 8 |")
