"""The card is what the hub reads, and its numbers are those of the tables."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.reporting.card_sections import WIDTH, _packed
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
        weights_sha256=hashlib.sha256(b"co_merge").hexdigest(),
        adapter_metadata=MERGE,
        benchmark_table=tables.benchmark_table,
        category_table=tables.category_table,
        variants=tables.variants,
        harmful=["unsafe", "i2p"],
        benign=["neutral"],
        sampling={"steps": 20, "guidance_scale": 7.5, "resolution": None},
        confidence=0.9,
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
    assert any(
        re.fullmatch(r"\| neutral \| FID ↓ \| 24 \| 10(\.00)? \| 102(\.0)? \|", x) for x in lines
    )
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
    assert re.search(r"FID 10(\.00)? → 102(\.0)? \(\+92(\.00)?\)", quality)
    assert "CLIPScore 31.11 → 28.11 (−3.00)" in quality
    # NudeNet's score is 0 everywhere in these tables, Q16's is not.
    silent = [line for line in lines if "flagged no harmful image of the base model" in line]
    assert len(silent) == 1 and silent[0].startswith("- nudenet flagged")
    assert any("with its 90% interval (bootstrap" in line for line in lines)
    assert any(line.startswith("- unsafe, neutral: held-out prompts") for line in lines)
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
        content(
            variant="linear",
            weights_sha256=hashlib.sha256(b"linear").hexdigest(),
            adapter_metadata=expert("hate"),
            expert_metadata={},
        )
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


def test_a_card_of_other_weights_than_were_measured_is_an_error():
    other = hashlib.sha256(b"another merge").hexdigest()
    measured = content().weights_sha256
    with pytest.raises(ValueError, match=f"weights {measured}.* {other}; run .*evaluation again"):
        model_card(content(weights_sha256=other))


def test_results_of_another_strength_are_not_given_to_the_hub():
    card = ModelCard(model_card(content(strength=0.5)), ignore_metadata_errors=False)
    assert card.data.eval_results is None
    first = card.text.strip().splitlines()[2]
    assert first.startswith("> **The results below are not those of this file.**")
    assert "strength 0.5;" in first
    header = next(line for line in card.text.splitlines() if line.startswith("| benchmark"))
    assert "at strength 1 " in header and "this model" not in header


def test_at_the_measured_strength_there_is_no_warning(text):
    assert "not those of this file" not in text and "at strength 1" not in text


def test_a_base_model_without_an_id_is_known_by_its_hash():
    text = model_card(content(base_model=None, license=None))
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert data.base_model is None and data.license is None
    base = hashlib.sha256(b"base").hexdigest()
    assert f"in the dtype it drew with): `{base}`" in text
    assert "the hash under Reproducibility" in text and "No licence is stated" in text
    named = model_card(content())
    assert "the hash under Reproducibility" not in named and "No licence is stated" not in named


def test_what_a_checker_saw_of_harm_is_told_but_not_given_to_the_hub():
    table = content().benchmark_table
    seen = {"base": (0.99, 0.0), "co_merge": (0.02, 0.55)}
    unsafe = (table["benchmark"] == "unsafe") & table["variant"].isin(seen)
    table = table.assign(mate_accuracy=np.nan)
    columns = ["concept_accuracy", "mate_accuracy"]
    table.loc[unsafe, columns] = [seen[name] for name in table.loc[unsafe, "variant"]]
    text = model_card(content(benchmark_table=table))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "| unsafe | the harmful concept is drawn ↓ | 72 | 0.990 | 0.020 |" in lines
    assert "| unsafe | its harmless counterpart is drawn ↑ | 72 | 0.000 | 0.550 |" in lines
    results = ModelCard(text).data.eval_results
    assert {r.metric_type for r in results if r.dataset_type == "unsafe"} == {
        "inappropriate_probability"
    }


def test_the_networks_of_distances_and_fit_are_named():
    networks = {"distances": {"name": "inception"}, "clip_score": {"name": "ViT-H-14"}}
    text = model_card(content(provenance=PROVENANCE | networks))
    assert "(FID: `inception`; CLIPScore: `ViT-H-14`)" in text
    names = {r.metric_type: r.metric_name for r in ModelCard(text).data.eval_results}
    assert names["fid"] == "FID by inception (lower is better)"
    assert names["concept_accuracy"] == "concept accuracy (higher is better)"


def test_what_did_not_get_worse_is_no_limit():
    table = content().benchmark_table
    ours = table["variant"] == "co_merge"
    better = table.assign(fid=table["fid"].mask(ours & table["fid"].notna(), 5.0))
    text = model_card(content(benchmark_table=better))
    (quality,) = [line for line in text.splitlines() if line.startswith("- Quality on neutral")]
    assert "CLIPScore" in quality and "FID" not in quality


def test_a_merge_that_was_not_cut_says_so():
    whole = MERGE | {"merge_relative_error": json.dumps({"layer.a": 0.0, "layer.b": 0.0})}
    text = model_card(content(adapter_metadata=whole))
    assert "- nothing is cut off: the adapter is the whole merge in all 2 layers" in text


entries = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=25,
)


@given(provenance=st.dictionaries(st.text(min_size=1, max_size=9), entries, max_size=6))
def test_packed_json_is_json(provenance):
    assert json.loads(_packed(provenance)) == provenance


@given(numbers=st.dictionaries(st.text("abc", min_size=1, max_size=9), st.integers(), min_size=30))
def test_entries_share_a_line_as_long_as_they_fit(numbers):
    lines = _packed(numbers).splitlines()[1:-1]
    assert all(len(line) <= WIDTH for line in lines)
    for line, following in pairwise(lines):
        assert len(f"{line} {following.split(',')[0].strip()}") >= WIDTH
