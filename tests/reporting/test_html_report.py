"""The report is one safe file; its numbers are those of the tables and can be traced."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from safetydpo_kedro.reporting.findings import quality_changes, safest, small_samples
from safetydpo_kedro.reporting.html_report import ReportContent, html_report
from safetydpo_kedro.reporting.html_tables import html_table
from tests.reporting.evaluation_tables import PROMPT, VARIANTS, report_content

CONTENT = report_content()
VOID = {"meta", "link", "input", "img", "br"}
LOADING = {"src", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """Elements of a page: attributes, and the text inside of scripts and of everything else."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.words.append(data)

    def find(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def body(content: ReportContent) -> Page:
    """The page without plotly.js, which takes long to read."""
    html = html_report(content)
    return Page(html[html.index("<body>") : html.index("</main>")])


@pytest.fixture(scope="module")
def html():
    return html_report(CONTENT)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_elements_are_nested_and_anchors_are_there(page):
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {a["href"].removeprefix("#") for a in page.find("a")}
    assert links <= set(ids) and {"summary", "results", "examples", "sources"} <= links


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.elements:
        for name in LOADING & attributes.keys():
            assert attributes[name].startswith("data:"), (tag, name, attributes[name][:80])
        if "href" in attributes:
            assert attributes["href"].startswith(("#", "data:")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not page.find("iframe") and not page.find("object")


def test_styles_load_nothing(html):
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_the_policy_allows_exactly_the_scripts_of_the_report(page):
    (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy["content"].startswith("default-src 'none'; script-src 'sha256-")
    executed = [s for s in page.scripts if not s.lstrip().startswith("{")]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in executed]
    assert len(executed) == 2
    assert re.findall(r"'sha256-([^']+)'", policy["content"]) == digests


def test_prompts_are_texts_never_markup(html, page):
    assert PROMPT not in html
    assert "<script>document.title" not in html
    assert PROMPT in page.text
    assert len(page.find("script")) == len(report_content().figures) + 2


@settings(max_examples=20, deadline=None)
@given(st.text("<>&\"'`/!-=;{}% scriptimgonerror", min_size=1))
def test_any_prompt_is_a_text(prompt):
    prompts = CONTENT.examples["prompt"]
    examples = CONTENT.examples.assign(prompt=prompts.mask(prompts == PROMPT, prompt))
    page = body(replace(CONTENT, examples=examples))
    assert prompt in page.words and page.tags == body(CONTENT).tags


def test_markup_in_names_and_figures_stays_text():
    content = report_content()
    evil = "</script><img src=x onerror=alert(1)>"
    figures = {evil: go.Figure(content.figures["IP by category"]).update_layout(xaxis_title=evil)}
    variants = content.variants.assign(kind=evil)
    page = Page(
        html_report(report_content(figures=figures, variants=variants, provenance={evil: [evil]}))
    )
    assert page.open == [] and not page.find("img", src="x")
    assert page.text.count(evil) == 1 + len(variants) * 2 + 2  # caption, kinds and links, entry


def test_alternative_texts_do_not_repeat_prompts(page):
    images = page.find("img")
    assert len(images) == 12 and all("prompt u0" in i["alt"] for i in images[:4])
    assert not any("knife" in i["alt"] or "cup" in i["alt"] for i in images)


@pytest.mark.parametrize(("blur", "veiled"), [("all", 12), ("flagged", None), ("none", 0)])
def test_blur_says_which_images_start_veiled(blur, veiled):
    content = report_content(blur=blur)
    flagged = int(content.examples["inappropriate"].sum())
    assert 0 < flagged < 12
    page = Page(html_report(content))
    shots = page.find("button", **{"aria-pressed": "false"})
    assert len(shots) == (flagged if veiled is None else veiled)
    assert all(shot["class"] == "shot veiled" for shot in shots)


def test_examples_have_scores_seed_and_hash(page):
    row = report_content().examples.iloc[0]
    assert page.find("code", title=f"SHA-256 {row['image_sha256']}")
    assert f"q16 {row['q16_score']:.3g}" in page.text and f"seed {row['seed']}" in page.text
    assert f"CLIPScore {row['clip_score']:.3g}" in page.text


def test_an_example_that_is_no_image_is_an_error():
    examples = report_content().examples.assign(image=b"GARBAGE!")
    with pytest.raises(ValueError, match=r"base, unsafe u0.*GARBAGE"):
        html_report(report_content(examples=examples))


def test_every_variant_has_an_entry_with_its_hashes(page):
    variants = report_content().variants
    for i, row in enumerate(variants.to_dict("records")):
        assert page.find("article", id=f"variant-{i}")
        assert row["weights_sha256"] in page.text and row["images_sha256"] in page.text
    assert "ViT-L-14" in page.text and "ab" * 32 in page.text and "nudenet 3.4.2" in page.text


def test_a_variant_without_entry_is_an_error():
    variants = report_content().variants.iloc[1:]
    with pytest.raises(ValueError, match="variant 'base' is not in the table of variants"):
        html_report(report_content(variants=variants))


def test_the_page_is_no_larger_than_its_parts():
    content = report_content()
    images = sum(4 * (len(image) + 2) // 3 + 4 for image in content.examples["image"])
    figures = sum(len(figure.to_json()) for figure in content.figures.values())
    rest = len(html_report(content)) - len(get_plotlyjs()) - images - figures
    assert rest < 80_000


def test_the_summary_names_the_safest_variant_and_its_price(page):
    table = report_content().benchmark_table.set_index(["benchmark", "variant"])
    best, base = table.loc[("unsafe", "co_merge")], table.loc[("unsafe", "base")]
    summary = page.text[page.text.index("Summary On") : page.text.index("Results Click")]
    assert "On unsafe prompts co_merge has the lowest IP" in summary
    assert f"{best['ip']:.2f} [{best['ip_low']:.2f}, {best['ip_high']:.2f}]" in summary
    assert f"base model has {base['ip']:.2f}" in summary
    assert "FID 10.00 → 102.0 (+92)" in summary and "31.11 → 28.11 (−3.00)" in summary
    assert "Small samples" in summary and "unsafe, by category (3): 24 images" in summary
    assert "all_single" in summary


def test_the_summary_follows_the_tables():
    content = report_content()
    table = content.benchmark_table.copy()
    table.loc[table["variant"] == "linear", ["ip", "ip_low", "ip_high"]] = [0.01, 0.0, 0.02]
    text = Page(html_report(report_content(benchmark_table=table, small_sample=10))).text
    assert "On unsafe prompts linear has the lowest IP" in text
    assert "FID 10.00 → 9.500 (−0.5)" in text
    assert "Small samples" not in text and "The order is not certain" not in text


def test_a_report_of_the_base_model_alone_has_no_winner():
    content = report_content()
    alone = {
        name: getattr(content, name)[getattr(content, name)["variant"] == "base"]
        for name in ("benchmark_table", "paper_table", "category_table", "thresholds", "examples")
    }
    page = Page(html_report(report_content(**alone, comparisons=pd.DataFrame(), figures={})))
    assert "No variant but the base model was judged" in page.text
    assert not page.find("table", id="comparisons") and page.find("table", id="paper")


def test_cells_show_intervals_and_nothing_for_missing_values():
    table = pd.DataFrame(
        {
            "variant": ["base", "other"],
            "ip": [0.1, np.nan],
            "ip_low": [0.06, np.nan],
            "ip_high": [0.15, np.nan],
            "ip_q16": [0.25, 0.5],
            "difference": [-0.5, 0.25],
            "low": [-0.75, -0.125],
            "high": [-0.25, 0.5],
            "images": [3, 4],
        }
    )
    data = html_table("t", "", table, {"base": "variant-0", "other": "variant-1"})
    headings = [("variant", False), ("IP", True), ("IP, q16 alone", True)]
    assert data.headings == (*headings, ("difference of IP", True), ("images", True))
    assert [cell.text for cell in data.rows[0]] == [
        "base",
        "0.100 [0.060, 0.150]",
        "0.250",
        "−0.500 [−0.750, −0.250]",
        "3",
    ]
    assert [cell.value for cell in data.rows[0]] == ["base", 0.1, 0.25, -0.5, 3]
    assert data.rows[1][1].text == data.rows[1][1].value == ""
    assert data.rows[1][3].text == "0.250 [−0.125, 0.500]"
    assert data.rows[1][0].target == "variant-1"


def test_safest_finds_the_lowest_ip_and_those_that_may_be_as_good():
    content = report_content()
    found = safest(content.benchmark_table, "unsafe", ["neutral"], content.comparisons)
    unsafe = content.benchmark_table[content.benchmark_table["benchmark"] == "unsafe"]
    assert found.variant == unsafe.loc[unsafe["ip"].idxmin(), "variant"]
    assert found.comparison["difference"] == pytest.approx(found.row["ip"] - found.base["ip"])
    assert found.overlapping == ("all_single",)
    assert [(c.column, c.base, c.value, c.worse) for c in found.changes] == [
        ("fid", 10, VARIANTS["co_merge"][1], True),
        ("clip_score", pytest.approx(31.115), pytest.approx(28.115), True),
        ("concept_accuracy", 0.97, 0.97, False),
    ]
    assert safest(content.benchmark_table, "i2p", ["neutral"]) is None


def test_quality_is_compared_only_where_both_were_measured():
    table = report_content().benchmark_table.copy()
    table.loc[table["variant"] == "base", "fid"] = np.nan
    changes = quality_changes(table, "linear", ["neutral", "coco"])
    assert [change.column for change in changes] == ["clip_score", "concept_accuracy"]


def test_small_samples_take_the_variant_with_fewest_images():
    table = pd.DataFrame(
        {
            "benchmark": ["a", "a", "b"],
            "images": [500, 20, 300],
            "ip_low": [0.1, 0.2, 0.0],
            "ip_high": [0.2, 0.6, 0.1],
        }
    )
    small = small_samples(table, ["benchmark"], 300)
    assert small.to_numpy().tolist() == [["a", 20, pytest.approx(0.4)]]
