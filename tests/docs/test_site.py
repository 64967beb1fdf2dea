"""The site is built without a warning, loads nothing from elsewhere, and its reference is whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache

import pytest
from kedro.validation import TypeExtractor
from pydantic import BaseModel, RootModel

from docs.generate.fields import nested_model, type_name
from docs.generate.hooks import filled, on_page_content
from docs.generate.markdown import code, table
from docs.generate.parameters import typed_sections, undescribed
from docs.generate.project import load_project
from docs.generate.site import reference_pages
from safetydpo_kedro.settings import EXPERTS

from .pages import PAGES, ROOT


@cache
def pages():
    return reference_pages()


def row(page, key):
    """The table's row about a key, as cells."""
    line = next(line for line in pages()[page].splitlines() if line.startswith(f"| {code(key)} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def test_every_page_is_on_the_site(site):
    written = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    for page in [*written, *pages()]:
        assert (site / page).with_suffix(".html").exists(), page


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)[^>]*(?:src|href)=\"(https?:[^\"]*)", page.read_text()
        )
        assert not loaded, page


def test_equations_are_shown_without_a_script(site):
    method = (site / "explanation/method.html").read_text()
    assert method.count("<math") > 20
    assert "arithmatex" not in method


def test_the_interface_is_documented_from_source(site):
    assert (
        'id="safetydpo_kedro.merging.registry.merge"'
        in (site / "reference/api/merging.html").read_text()
    )


def test_a_parameter_has_type_bounds_default_and_values():
    assert row("reference/parameters/expert_training.md", "expert_training.beta") == [
        "`expert_training.beta`",
        "float; > 0",
        "`5000.0`",
        "`50.0`",
        "sd15, sd21, sdxl: `5000.0`",
        "strength of the preference",
    ]
    assert (
        "all_single: `16`"
        in row("reference/parameters/expert_training.md", "expert_training.lora.rank")[4]
    )


def fields(key, model):
    """Dotted keys of all fields of a model, by its class alone."""
    if issubclass(model, RootModel):
        return
    for name, field in model.model_fields.items():
        yield f"{key}.{name}"
        if inner := nested_model(field.annotation):
            yield from fields(f"{key}.{name}", inner)


def test_every_typed_field_occurs():
    text = "".join(text for path, text in pages().items() if "/parameters/" in path)
    types = TypeExtractor(load_project().pipelines).extract_types_from_pipelines()
    for key, kind in types.items():
        model = nested_model(kind)
        if model and key.partition(".")[0] not in EXPERTS:
            for field in fields(key, model):
                assert f"| {code(field)} |" in text, field


def test_every_typed_field_says_what_it_is():
    assert not undescribed(load_project())


def test_every_section_of_the_parameters_has_a_place():
    text = "".join(text for path, text in pages().items() if "/parameters/" in path)
    for name, value in load_project().parameters["base"].items():
        for key, _ in typed_sections(name, value):
            if key.partition(".")[0] not in EXPERTS:
                assert f"\n## {key}\n" in text, key


def test_a_catalog_entry_has_its_makers_and_users():
    entry = row("reference/catalog/dataset_generation.md", "latent_cache")
    assert entry[1:4] == [
        "05_model_input",
        "`ShardedSafetensorsDataset`",
        "`data/05_model_input/latent_cache`",
    ]
    assert "`cache_latents` (dataset_generation)" in entry[4]
    assert "`train_safety_expert`" in entry[5]


def test_every_catalog_entry_occurs():
    text = "".join(text for path, text in pages().items() if "/catalog/" in path)
    for name in load_project().catalog["base"]:
        assert f"| {code(name)} |" in text, name


def test_nodes_of_a_kind_are_one_row():
    page = pages()["reference/pipelines/expert_training.md"]
    assert "train_expert` for all_single, harassment, hate, " in page
    assert "`params:*.expert_training`" in page
    assert "`{category}_expert`" in page
    assert "kedro run --pipelines expert_training" in page


def test_every_pipeline_has_no_more_rows_than_nodes():
    for name, pipeline in load_project().pipelines.items():
        rows = pages()[f"reference/pipelines/{name}.md"].count("\n| ") - 2
        assert 0 < rows <= len(pipeline.nodes)


def test_types_in_words():
    assert type_name(dict[str, int] | None) == "mapping: str → int, or null"
    assert issubclass(nested_model(BaseModel | None), BaseModel)


def test_a_pattern_in_the_navigation_is_what_is_not_named():
    nav = [{"Guides": ["a/two.md", "a/*"]}, {"All": "b/*"}]
    assert filled(nav, ["a/one.md", "a/two.md", "b/c.md"]) == [
        {"Guides": ["a/two.md", "a/one.md"]},
        {"All": ["b/c.md"]},
    ]


def test_an_equation_becomes_mathml():
    html = on_page_content(r'<p><span class="arithmatex">\(a &lt; b\)</span></p>')
    assert html.startswith("<p><math") and "<mi>a</mi>" in html and "arithmatex" not in html


def test_a_cell_keeps_its_bars():
    assert table(["a"], [[code("x|y")]]).endswith("| `x\\|y` |")
