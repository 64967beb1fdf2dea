"""All pages of the reference, by their path on the site."""

from __future__ import annotations

from docs.generate.api import PACKAGES, api_page
from docs.generate.catalog import catalog_page
from docs.generate.markdown import summary, table
from docs.generate.nodes import pipeline_page
from docs.generate.parameters import parameter_page
from docs.generate.project import Project, load_project
from docs.generate.registries import attacks_page, strategies_page

WIDE = "---\nhide: [toc]\n---\n\n"  # tables need the width of the page


def reference_pages() -> dict[str, str]:
    """Path below ``docs`` → Markdown."""
    project = load_project()
    pages = {
        "reference/index.md": overview(project),
        "reference/merge_strategies.md": strategies_page(),
        "reference/attacks.md": attacks_page(),
    }
    for name in project.pipelines:
        pages[f"reference/pipelines/{name}.md"] = pipeline_page(project, name)
        pages[f"reference/parameters/{name}.md"] = parameter_page(project, name)
        pages[f"reference/catalog/{name}.md"] = catalog_page(project, name)
    for package in PACKAGES:
        pages[f"reference/api/{package}.md"] = api_page(package)
    return {path: _head(path) + text for path, text in pages.items() if text}


def _head(path: str) -> str:
    """Front matter of a page: the interface of a package is read by its table of contents."""
    return "" if "/api/" in path else WIDE


def overview(project: Project) -> str:
    """The first page: pipelines, and what the other pages hold."""
    rows = []
    for name, pipeline in project.pipelines.items():
        module = __import__(f"safetydpo_kedro.pipelines.{name}.pipeline", fromlist=["pipeline"])
        default = "yes" if project.in_default(name) else ""
        rows.append(
            (f"[{name}](pipelines/{name}.md)", summary(module), str(len(pipeline.nodes)), default)
        )
    lines = [
        "# Reference",
        "Made from the code and the configuration when this site was built.",
        table(("pipeline", "what it does", "nodes", "in `kedro run`"), rows),
        "- *Pipelines*: nodes with their inputs and outputs.\n"
        "- *Parameters*: every key with type, bounds, default and the values that files state.\n"
        "- *Catalog*: every data set, where it lies, what makes it and what uses it.\n"
        "- [Merge strategies](merge_strategies.md) and [attacks](attacks.md): all settings.\n"
        "- *Python*: the packages below the pipelines.",
    ]
    return "\n\n".join(lines) + "\n"
