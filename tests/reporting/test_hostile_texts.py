"""Names and texts of others inside of Markdown: whatever they are, the page around them stays."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from safetydpo_kedro.reporting.markdown import code, escaped, fenced, one_line
from safetydpo_kedro.reporting.model_card import model_card
from safetydpo_kedro.reporting.tables import to_markdown

from .test_dataset_card import CONTENT, card
from .test_model_card import MERGE, content

# As hubs read it: tables, and HTML that goes through as it is.
READER = MarkdownIt("commonmark", {"html": True}).enable("table")
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](http://127.0.0.1/pixel.png)",
    "[a][b]\n\n[b]: http://127.0.0.1/",
    "[a]: http://127.0.0.1/",
    "<http://127.0.0.1/>",
    "a|b|c",
    "a\\|b",
    "```\n# heading",
    "`` ` ``",
    "&lt;script&gt;",
    "\\<b>",
    "\n\n---\n\n# heading",
    "| a |\n| - |\n",
    "\u2028# heading",
    "\0\x1b[31m",
]
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("ab <>[]()!|\\`&;:#\n\"'/"), min_size=1, max_size=30),
    st.text(min_size=1, max_size=30),
).filter(lambda text: one_line(text))
SLANTED = {"em_open", "em_close", "strong_open", "strong_close"}


def structure(markdown: str) -> list[str]:
    """Kinds of everything on a page but plain text, in order."""
    kinds = []
    for block in READER.parse(markdown):
        kinds.append(block.type)
        for child in block.children or ():
            if child.type not in {"text", "text_special", "softbreak", *SLANTED}:
                kinds.append(child.type)
    return kinds


def read(markdown: str) -> str:
    """All text of a page, as a reader sees it."""
    return "\n".join(
        "".join(child.content for child in block.children or ()) or block.content
        for block in READER.parse(markdown)
    ).strip()


@settings(deadline=None)
@given(texts)
@example("<b>")
def test_a_text_in_a_line_stays_a_text(text):
    assert structure(f"before {escaped(text)} after") == structure("before x after")
    if not set(text) & set("*_"):
        assert read(f"before {escaped(text)} after") == f"before {one_line(text)} after"


@settings(deadline=None)
@given(texts, texts)
def test_a_text_in_a_cell_stays_in_its_cell(name, other):
    table = pd.DataFrame({"variant": [name, other], "ip": [0.1, 0.2]})
    plain = table.assign(variant=["a", "b"])
    headed = table.rename(columns={"variant": name})
    assert structure(to_markdown(table)) == structure(to_markdown(plain))
    assert structure(to_markdown(headed)) == structure(to_markdown(plain))


@settings(deadline=None)
@given(texts)
def test_code_is_code_and_nothing_else(text):
    assert structure(f"before {code(text)} after") == structure("before `a` after")
    assert read(f"before {code(text)} after") == f"before {one_line(text)} after"


@settings(deadline=None)
@given(texts)
def test_a_block_of_code_ends_where_it_should(text):
    tokens = READER.parse(fenced(text, "text") + "\nafter\n")
    assert [token.type for token in tokens] == structure("```text\na\n```\n\nafter\n")[:4]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_model_card_keeps_its_form(text):
    metadata = MERGE | {
        "merge_strategy": json.dumps(text),
        "merge_experts": json.dumps([text, "b"]),
        "categories": json.dumps([text]),
        "note": text,
    }
    plain = {**metadata, "merge_strategy": "a", "merge_experts": '["a", "b"]', "note": "a"}
    changes = {"name": text, "weight_name": text, "base_model": None}
    hostile = model_card(
        content(adapter_metadata=metadata, provenance={text: {"name": text}}, **changes)
    )
    calm = model_card(
        content(
            adapter_metadata=plain | {"categories": '["a"]'},
            provenance={"a": {"name": "a"}},
            **(changes | {"name": "a", "weight_name": "a"}),
        )
    )
    assert structure(body(hostile)) == structure(body(calm))


def body(markdown: str) -> str:
    """A card without its head of YAML."""
    return re.split(r"^---$", markdown, maxsplit=2, flags=re.MULTILINE)[2]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_dataset_card_keeps_its_form(text):
    def written(name: str) -> str:
        concepts = CONTENT["concepts"]
        concepts = concepts | {"user": f"{concepts['user']}\n{name}"}
        return card(
            model={"model": name}, templates=CONTENT | {"version": name, "concepts": concepts}
        )

    assert structure(written(text)) == structure(written("a"))
