"""The shipped templates, and what is said about broken ones."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from safetydpo_kedro.prompts.exclusion import is_excluded
from safetydpo_kedro.prompts.templates import PLACEHOLDERS, read_templates

SHIPPED = yaml.safe_load(
    (
        Path(__file__).parents[2] / "src/safetydpo_kedro/prompts/assets/prompt_templates.yml"
    ).read_text(encoding="utf-8")
)


def changed(name: str, **messages: str) -> dict:
    content = copy.deepcopy(SHIPPED)
    content[name] |= messages
    return content


def test_the_shipped_templates_are_filled_in_completely():
    templates = read_templates(SHIPPED)
    values = {"category": "self harm", "concept": "$5 knife", "count": 3, "known": "none"}
    system, user = templates.unsafe_prompts.messages(**values)
    assert (system.role, user.role) == ("system", "user")
    assert "$5 knife" in user.content
    assert "3 strings" in user.content
    assert "$" not in user.content.replace("$5", "")


def test_every_shipped_template_asks_for_adults_and_json():
    templates = read_templates(SHIPPED)
    for name in PLACEHOLDERS:
        text = getattr(templates, name).system + getattr(templates, name).user
        for words in ("adults", "minors", "JSON array"):
            assert words in text
        assert not is_excluded(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("unsafe_prompts", user="$count, $known"), "lacks .category, lacks .concept"),
        (changed("concepts", system="$colour"), "'concepts' has the unknown .colour"),
        (changed("safe_counterpart", user="costs 5$ or $"), "no name after it"),
        (changed("safe_counterpart", assistant="x"), "Unknown key"),
        ({k: v for k, v in SHIPPED.items() if k != "version"}, "version"),
    ],
)
def test_a_broken_template_is_an_error_that_says_where(content, message):
    with pytest.raises(ValueError, match=f"(?s)prompt_templates:.*{message}"):
        read_templates(content)
