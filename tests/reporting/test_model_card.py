"""The card is what the hub reads, and its numbers are those of the tables."""

from __future__ import annotations

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard

from safetydpo_kedro.reporting.model_card import CardContent, model_card
from tests.reporting.evaluation_tables import CATEGORIES, PROVENANCE, evaluation

MERGE = {
    "merge_strategy": "co_merge",
    "merge_config": json.dumps({"rank": 8, "mode": "rows"}),
    "merge_experts": json.dumps(list(CATEGORIES)),
    "merge_relative_error": json.dumps({"layer.a": 0.125, "layer.b": 0.0625}),
}


def expert(name, **recipe):
    settings = json.dumps({"steps": 100, "beta": 50} | recipe)
    return {"expert": name, "categories": json.dumps([name]), "expert_training": settings}


def content(**changes) -> CardContent:
    tables = evaluation()
    card = CardContent(
        name="safe-pictograms",
        variant="co_merge",
        license="apache-2.0",
        base_model="someone/pictograms",
        weight_name="co_merge.safetensors",
        adapter_metadata=MERGE,
        benchmark_table=tables.benchmark_table,
        category_table=tables.category_table,
        variants=tables.variants,
        harmful=["unsafe", "i2p"],
        benign=["neutral"],
        provenance=PROVENANCE,
        expert_metadata={
            "hate": expert("hate"),
            "violence": expert("violence", steps=300),
            "sexual": expert("sexual"),
        },
    )
    return replace(card, **changes)


@pytest.fixture(scope="module")
def text():
    return model_card(content())


@pytest.fixture(scope="module")
def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_hub_reads_what_it_asks_for(text):
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert data.license == "apache-2.0" and data.base_model == "someone/pictograms"
    assert data.library_name == "diffusers" and data.pipeline_tag == "text-to-image"
    assert {"lora", "text-to-image", "safety", "diffusers"} <= set(data.tags)
    assert data.model_name == "safe-pictograms"


def test_results_survive_the_way_through_the_card(text):
    results = ModelCard(text, ignore_metadata_errors=False).data.eval_results
    found = {(r.dataset_type, r.metric_type): r.metric_value for r in results}
    table = content().benchmark_table.set_index(["variant", "benchmark"]).loc["co_merge"]
    assert found == {
        ("unsafe", "inappropriate_probability"): table.loc["unsafe", "ip"],
        ("neutral", "fid"): 102.0,
        ("neutral", "clip_score"): pytest.approx(28.115),
        ("neutral", "concept_accuracy"): 0.97,
    }
    assert all(r.task_type == "text-to-image" for r in results)


def test_a_card_can_be_saved_and_loaded(text, tmp_path):
    path = tmp_path / "README.md"
    card = ModelCard(text)
    card.save(path)
    again = ModelCard.load(path)
    assert again.text.strip() == card.text.strip()
    assert again.data.to_dict() == card.data.to_dict()


def test_base_and_adapter_stand_side_by_side(lines):
    table = content().benchmark_table.set_index(["variant", "benchmark"])
    ip = [
        "{ip:.3f} [{ip_low:.3f}, {ip_high:.3f}]".format(**table.loc[(name, "unsafe")])
        for name in ("base", "co_merge")
    ]
    assert f"| unsafe | IP ↓ | 72 | {ip[0]} | {ip[1]} |" in lines
    assert "| neutral | FID ↓ | 24 | 10 | 102 |" in lines
    # CLIPScore is no quality where images ought not to fit their prompts.
    assert not any(line.startswith(("| neutral | IP", "| unsafe | CLIP")) for line in lines)


def test_a_benchmark_that_is_neither_harmful_nor_benign_shows_all():
    results = ModelCard(model_card(content(benign=[]))).data.eval_results
    found = [r.metric_type for r in results if r.dataset_type == "neutral"]
    assert found == ["inappropriate_probability", "fid", "clip_score", "concept_accuracy"]


def test_ip_by_category_and_judge(lines):
    table = content().category_table.set_index(["variant", "category"])
    assert "| category | images | IP of base | IP | q16 alone | nudenet alone |" in lines
    for category in CATEGORIES:
        (line,) = [line for line in lines if line.startswith(f"| {category} |")]
        assert line.startswith(f"| {category} | 24 | {table.loc[('base', category), 'ip']:.3f} [")
        ours = table.loc[("co_merge", category)]
        assert line.endswith(f"{ours['ip_high']:.3f}] | {ours['ip_q16']:.3f} | 0.000 |")


def test_limits_are_computed(lines):
    tables = content()
    ours = tables.category_table[tables.category_table["variant"] == "co_merge"]
    worst = ours.loc[ours["ip"].idxmax()]
    assert any(
        line.startswith(f"- Most is left of: {worst['category']} {worst['ip']:.2f} [")
        for line in lines
    )
    width = (ours["ip_high"] - ours["ip_low"]).max()
    assert any("rests on 72 images" in line and f"up to {width:.2f} wide" in line for line in lines)
    (quality,) = [line for line in lines if line.startswith("- Quality on neutral")]
    assert "FID 10 → 102 (+92)" in quality and "CLIPScore 31.11 → 28.11 (−3.00)" in quality
    assert "- Judged by: q16, nudenet; versions and weights below." in lines
    assert any("AGPL-3.0" in line for line in lines)
    assert any("Adversarial prompts" in line for line in lines)


def test_a_merge_says_what_it_was_made_of(text, lines):
    assert "- merge strategy: `co_merge`" in lines
    assert "- experts: 3 (hate, violence, sexual)" in lines
    assert any("at most 0.125 over 2 layers" in line for line in lines)
    assert "layer.a" not in text
    # Equal recipes are told once.
    assert "Recipe of hate, sexual:" in lines and "Recipe of violence:" in lines
    assert text.count('"steps": 100') == text.count('"steps": 300') == 1
    assert '"mode": "rows"' in text


def test_an_expert_says_its_categories_and_recipe():
    lines = model_card(
        content(variant="linear", adapter_metadata=expert("hate"), expert_metadata={})
    ).splitlines()
    assert "- categories: 1 (hate)" in lines
    assert any('"beta": 50' in line for line in lines)
    assert not any("merge strategy" in line or "Recipe of" in line for line in lines)


def test_the_snippet_is_python_with_the_names_of_this_model(text):
    code = text.split("```python\n")[1].split("```")[0]
    constants = {n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)}
    assert {"someone/pictograms", "co_merge.safetensors"} <= constants


def test_hashes_and_versions_are_there(text):
    row = content().variants.set_index("variant").loc["co_merge"]
    assert row["weights_sha256"] in text and row["images_sha256"] in text
    block = text.split("## Reproducibility")[1].split("```json\n")[1].split("```")[0]
    assert json.loads(block) == PROVENANCE


def test_without_a_base_model_its_columns_are_empty():
    tables = content()
    table = tables.benchmark_table[tables.benchmark_table["variant"] != "base"]
    text = model_card(content(benchmark_table=table.assign(fid=np.nan)))
    assert "What safety costs in quality was not measured." in text
    assert "FID" not in text and "nan" not in text.lower().split("reproducibility")[0]


@pytest.mark.parametrize("name", ["benchmark_table", "category_table", "variants"])
def test_a_table_without_the_variant_is_an_error(name):
    table = getattr(content(), name)
    with pytest.raises(ValueError, match=rf"{name} lacks 'co_merge'; it has .*'base'"):
        model_card(content(**{name: table[table["variant"] != "co_merge"]}))


def test_a_card_without_harmful_benchmarks_is_an_error():
    with pytest.raises(ValueError, match=r"none of the harmful benchmarks \['i2p'\].*unsafe"):
        model_card(content(harmful=["i2p"]))
