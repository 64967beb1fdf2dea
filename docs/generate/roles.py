"""Griffe extension: docstrings use Sphinx's roles and double backticks, pages use Markdown."""

from __future__ import annotations

from typing import Any

import griffe

from docs.generate.markdown import plain


class Roles(griffe.Extension):
    """Turns ``:func:`~package.module.name` `` into code, whose text is the last part."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)
