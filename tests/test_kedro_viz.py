"""The DAG as people see it in Kedro-Viz: stages, layers, descriptions, previews."""

from __future__ import annotations

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from safetydpo_kedro.settings import CATEGORIES, EXPERTS, VARIANTS
from tests.browser import needs_browser, open_browser, wait
from tests.small_run import kedro

STAGES = {"dataset_generation", *EXPERTS, "merging", "evaluation"}
LAYERS = [
    "01_raw",
    "02_intermediate",
    "03_primary",
    "04_feature",
    "05_model_input",
    "06_models",
    "07_model_output",
    "08_reporting",
]
# What there is nothing to show of: models, files that users bring, texts.
NOTHING_TO_SHOW = {
    "datasets.chat_model.ChatModelDataset",
    "datasets.clip_model.ClipModelDataset",
    "datasets.diffusion_pipeline.DiffusionPipelineDataset",
    "datasets.external_models.ExternalModelsDataset",
    "datasets.optional.OptionalDataset",
    "text.text_dataset.TextDataset",
}
EXTERNAL = {"external_images", "external_judgements"}  # nobody's models were brought
PREVIEWS = {"TablePreview", "ImagePreview", "PlotlyPreview", "JSONPreview"}


@pytest.fixture(scope="module")
def site(finished_run, tmp_path_factory):
    """The static site, with previews, of a finished run."""
    folder = tmp_path_factory.mktemp("viz")
    (folder / "src").mkdir()
    for part in ("pyproject.toml", ".telemetry", ".viz", "conf", "data", "src/safetydpo_kedro"):
        (folder / part).symlink_to(finished_run / part)
    kedro(folder, "viz", "build", "--include-previews")
    return folder / "build"


def read(site, *path):
    return json.loads(site.joinpath("api", *path).read_text())


@pytest.fixture(scope="module")
def flowchart(site):
    return read(site, "main")


def entries(flowchart, kind):
    """Nodes of one kind in the default pipeline, by name."""
    return {
        node["name"]: node
        for node in flowchart["nodes"]
        if node["type"] == kind and "__default__" in node["pipelines"]
    }


def test_the_dag_reads_as_the_method(flowchart):
    modular = flowchart["modular_pipelines"]
    children = {child["id"] for child in modular["__root__"]["children"]}
    assert (
        children >= STAGES and not {n["id"] for n in entries(flowchart, "task").values()} & children
    )
    assert {name for name in modular if "." in name} == {
        f"evaluation.{name}" for name in (*VARIANTS, "external")
    }
    ids = {name: node["id"] for name, node in entries(flowchart, "data").items()}
    edges = {(edge["source"], edge["target"]) for edge in flowchart["edges"]}
    for category in CATEGORIES:
        assert ("dataset_generation", ids["latent_cache"]) in edges
        assert (ids["latent_cache"], category) in edges
        assert (ids[f"{category}_expert"], "merging") in edges
    assert (ids["fitted_co_merge"], "evaluation") in edges


def test_layers_go_downwards_in_every_pipeline(flowchart, site):
    assert flowchart["layers"] == LAYERS  # Kedro-Viz gives none if they form a circle
    for pipeline in flowchart["pipelines"]:
        page = read(site, "pipelines", pipeline["id"])
        layers = [node["layer"] for node in page["nodes"] if node["type"] == "data"]
        assert None not in layers, pipeline["id"]
        assert [name for name in page["layers"] if name in layers] == sorted(set(layers))


def test_every_node_is_described(flowchart, site):
    for name, node in entries(flowchart, "task").items():
        preview = read(site, "nodes", node["id"])["preview"]
        assert preview["kind"] == "text" and preview["content"].endswith((".", "``.")), name


def test_every_artifact_worth_seeing_has_a_preview(flowchart, site):
    bare = []
    for name, node in entries(flowchart, "data").items():
        shown = read(site, "nodes", node["id"])
        assert shown["preview"] is None or shown["preview_type"] in PREVIEWS, name
        if not shown["preview"] and node["dataset_type"] not in NOTHING_TO_SHOW:
            bare.append(name)
    assert set(bare) <= EXTERNAL | {"reference_images"}


@pytest.fixture(scope="module")
def address(site):
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/?types=nodes,datasets&pid=__default__"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


def texts(browser, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
    return set(browser.execute_script(script, selector))


@needs_browser
def test_the_flowchart_in_a_browser(browser, address):
    browser.get(address)
    wait(browser, lambda: texts(browser, ".pipeline-node--modularPipeline") == STAGES)
    assert {"01_raw", "06_models", "08_reporting"} <= texts(browser, ".pipeline-layer-name")


@needs_browser
def test_a_stage_opens(browser, address):
    browser.get(address)
    wait(browser, lambda: "merging" in texts(browser, ".pipeline-node"))
    assert "merge_co_merge" not in texts(browser, ".pipeline-node")
    arrow = "[role=treeitem][id$=merging] .MuiTreeItem-iconContainer"
    wait(browser, lambda: browser.find_elements("css selector", arrow))
    browser.execute_script("document.querySelector(arguments[0]).click()", arrow)
    inside = {"merge_co_merge", "fit_merge_weights", "activation_profile"}
    wait(browser, lambda: inside <= texts(browser, ".pipeline-node"))


@needs_browser
@pytest.mark.parametrize(
    "name, selector",
    [
        ("benchmark_table", ".preview-table td"),
        ("qualitative_grid", ".pipeline-metadata__plot-image"),
        ("ip_by_category", ".pipeline-plotly-chart .main-svg .point"),
        ("image_pairs", ".pipeline-metadata__plot-image"),
        ("hate_expert", ".preview-table td"),
    ],
)
def test_previews_are_drawn(browser, address, flowchart, name, selector):
    node = entries(flowchart, "data")[name]
    browser.get(f"{address}&sid={node['id']}")
    (first, *_) = wait(browser, lambda: browser.find_elements("css selector", selector))
    if first.tag_name == "img":
        wait(browser, lambda: first.get_property("naturalWidth") > 100)
    else:
        assert first.is_displayed()
