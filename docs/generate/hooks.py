"""Hooks of MkDocs: pages of the reference, equations as MathML, links that leave the site."""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Collection, Iterator
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
EQUATION = re.compile(
    r'<(span|div) class="arithmatex">(?:\\\((.*?)\\\)|\\\[(.*?)\\\])</\1>', re.DOTALL
)
LEAVING = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the project."""
    sys.path.insert(0, str(ROOT))  # MkDocs loads hooks by path, and forgets where they lie
    from docs.generate.site import reference_pages

    for path, text in reference_pages().items():
        files.append(File.generated(config, path, content=text))
    pages = [file.src_uri for file in files.documentation_pages()]
    config.nav = filled(config.nav, pages)
    return files


def filled(nav: list[Any], pages: Collection[str]) -> list[Any]:
    """A navigation whose patterns are replaced by the pages that they match.

    Args:
        nav: of ``mkdocs.yml``: paths, ``folder/*`` for the pages of a folder that are not named,
            or titles with either.
        pages: paths of all pages.

    Example:
        >>> filled([{"Guides": ["a/two.md", "a/*"]}], ["a/one.md", "a/two.md", "b.md"])
        [{'Guides': ['a/two.md', 'a/one.md']}]
    """
    named = set(_paths(nav))

    def fill(entry: Any) -> list[Any]:
        if isinstance(entry, dict):
            return [{title: filled_part(inner) for title, inner in entry.items()}]
        if not entry.endswith("*"):
            return [entry]
        return sorted(page for page in fnmatch.filter(pages, entry) if page not in named)

    def filled_part(inner: Any) -> Any:
        if isinstance(inner, str) and not inner.endswith("*"):
            return inner
        entries = inner if isinstance(inner, list) else [inner]
        return [page for entry in entries for page in fill(entry)]

    return filled_part(nav)


def _paths(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for inner in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _paths(inner)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **kwargs: Any) -> str:
    """Name files of the repository that a page links to: the site holds none but ``docs``."""
    docs = Path(config.docs_dir)
    folder = (docs / page.file.src_uri).parent

    def named(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if target.is_relative_to(docs) or not target.is_relative_to(ROOT) or not target.exists():
            return link[0]
        path = f"`{target.relative_to(ROOT)}`"
        return path if link[1].strip("`") == path.strip("`") else f"{link[1]} ({path})"

    return LEAVING.sub(named, markdown)


def on_page_content(html: str, **kwargs: Any) -> str:
    """Equations as MathML, which browsers show without a script."""

    def rendered(equation: re.Match[str]) -> str:
        inline, display = equation[2], equation[3]
        return convert(unescape(inline or display), display="inline" if inline else "block")

    return EQUATION.sub(rendered, html)
