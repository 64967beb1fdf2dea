"""Markdown of the reference: tables, code, docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")


def code(text: str) -> str:
    """Text as code, also within a table."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def codes(names: Iterable[str]) -> str:
    """Names as code, in a row."""
    return ", ".join(code(name) for name in names)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; line breaks in cells become spaces."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()) for cell in row) + " |" for row in lines
    )


def summary(documented: Any) -> str:
    """First paragraph of a docstring, in Markdown; nothing if there is none of its own."""
    text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
    return plain(text.partition("\n\n")[0].replace("\n", " "))


def plain(text: str) -> str:
    """Docstring text with Sphinx's roles and double backticks as code.

    Example:
        >>> plain("see :func:`~merging.core.merge`, with ``config``")
        'see `merge`, with `config`'
    """
    text = ROLE.sub(lambda match: f"`{match[1].split('.')[-1]}`", text)
    return text.replace("``", "`")
