"""Names and texts of others inside of Markdown: shown as they are, never as links or markup.

Underscores and asterisks stay as they are. At worst they make a word slanted, and escaped ones
would make every table of names such as ``co_merge`` hard to read as plain text.
"""

from __future__ import annotations

import re

# What begins HTML, an entity, an escape, code, a cell, or the second half of a link or image.
_SPECIAL = {
    "&": "&amp;",
    "<": "&lt;",
    "\\": "&#92;",
    "`": "&#96;",
    "|": "\\|",
    "](": "]&#40;",
    "][": "]&#91;",
    "]:": "]&#58;",
}
_PATTERN = re.compile("|".join(map(re.escape, _SPECIAL)))


def escaped(text: str) -> str:
    r"""A text as it stands within a line, or in a cell of a table.

    Example:
        >>> escaped("a|b <script> [c](javascript:d)\ne")
        'a\\|b &lt;script> [c]&#40;javascript:d) e'
    """
    return _PATTERN.sub(lambda match: _SPECIAL[match[0]], one_line(text))


def code(text: str) -> str:
    """A text as code within a line; its fence has more backticks than the text.

    Example:
        >>> code("a"), code("a `b`")
        ('`a`', '`` a `b` ``')
    """
    text = one_line(text)
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (_longest_run(text) + 1)
    return f"{fence} {text} {fence}"


def fenced(text: str, language: str) -> str:
    """A block of code; its fence has more backticks than any line of it.

    Returns:
        Lines that end with a line break.
    """
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"


def one_line(text: str) -> str:
    """A text without line breaks and control characters, and with single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
