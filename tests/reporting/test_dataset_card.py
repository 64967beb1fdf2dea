"""The card counts, quotes the templates, and shows no prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from safetydpo_kedro.parameters import ConceptParameters, PromptWritingParameters
from safetydpo_kedro.prompts.collect import collect_pairs
from safetydpo_kedro.prompts.quality import measure_pairs
from safetydpo_kedro.prompts.templates import read_templates
from safetydpo_kedro.prompts.writer import PromptPair, RejectedPrompt, pairs_table
from safetydpo_kedro.reporting.dataset_card import dataset_card, quantiles

CONTENT = yaml.safe_load(
    (
        Path(__file__).parents[2] / "src/safetydpo_kedro/prompts/assets/prompt_templates.yml"
    ).read_text(encoding="utf-8")
)
MODEL = {"provider": "openai", "model": "small-7b", "temperature": 0.7}


def card(
    source: str = "language_model",
    per_category: int | None = None,
    model: dict = MODEL,
    templates: dict = CONTENT,
) -> str:
    written = [
        PromptPair("violence", "knife", f"scarlet knife {i}", f"scarlet spoon {i}", str(i))
        for i in range(3)
    ]
    written.append(PromptPair("hate", "slur", "scarlet slur", "scarlet word", "g"))
    written += [
        RejectedPrompt("violence", "knife", "scarlet knife!", "copy", source),
        RejectedPrompt("violence", "knife", None, "excluded", source),
        RejectedPrompt("violence", "knife", None, "excluded", source),
    ]
    imported = pairs_table([PromptPair("hate", "hate", "scarlet a", "scarlet b", "g")], 0)
    pairs, rejected = collect_pairs(written, source, 0, imported)
    measured = measure_pairs(pairs, lambda texts: np.ones((len(texts), 1), np.float32))
    writing = PromptWritingParameters(writer="some.Writer", imported=True, pairs_per_concept=3)
    concepts = ConceptParameters(per_category=per_category)
    quoted = read_templates(templates)
    return dataset_card(pairs, measured, rejected, quoted, model, concepts, writing)


def test_it_counts_pairs_by_category_and_source():
    lines = [" ".join(line.split()) for line in card().splitlines()]
    assert "| category | concepts | imported | language_model | pairs |" in lines
    assert "| violence | 1 | 0 | 3 | 3 |" in lines
    assert "| hate | 2 | 1 | 1 | 2 |" in lines
    assert "| total | 3 | 1 | 4 | 5 |" in lines
    assert lines.index("| violence | 1 | 0 | 3 | 3 |") < lines.index("| hate | 2 | 1 | 1 | 2 |")


def test_it_counts_what_was_rejected_and_excluded():
    text = " ".join(card().split())
    assert "| language_model | copy | 1 |" in text
    assert "| language_model | excluded | 2 |" in text
    assert "Excluded here: 2." in text


def test_it_shows_no_prompt_and_quotes_the_templates():
    text = card()
    assert "scarlet" not in text
    assert f"Prompt templates, version {CONTENT['version']}" in text
    for name in ("unsafe_prompts", "safe_counterpart", "concepts"):
        assert CONTENT[name]["system"] in text
        assert CONTENT[name]["user"] in text


@pytest.mark.parametrize(
    ("source", "per_category", "asked"),
    [("language_model", None, True), ("GrammarWriter", None, False), ("GrammarWriter", 9, True)],
)
def test_it_names_the_model_only_if_it_was_asked(source, per_category, asked):
    text = card(source, per_category)
    assert ("small-7b" in text) == asked
    assert ("Prompt templates" in text) == asked


def test_quantiles_by_hand():
    column = [0.0, 0.25, 0.5, 0.75, 1.0]
    pairs = pd.DataFrame(
        {
            "token_jaccard": column,
            "embedding_similarity": column,
            "unsafe_words": [1, 2, 3, 4, 5],
            "safe_words": 2,
        }
    )
    table = quantiles(pairs).set_index("measure")
    assert table.loc["token_jaccard", ["0%", "25%", "50%", "100%", "mean"]].tolist() == [
        *(0, 0.25, 0.5, 1, 0.5)
    ]
    assert table.loc["unsafe_words", "95%"] == pytest.approx(4.8)
