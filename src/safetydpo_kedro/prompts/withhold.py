"""Removal of excluded text from replies, before they are stored or shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from safetydpo_kedro.prompts.exclusion import is_excluded

WITHHELD = "[withheld]"
MAX_CHARACTERS = 100_000  # of a reply; what a model should say has a few thousand
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def withhold(reply: str, category: str | None, about: tuple[str, ...] = ()) -> str:
    """Replace what the exclusion rule hits by a marker, which the parser counts.

    Quoted strings are judged one by one, so that a reply of JSON in one line loses only what is
    hit; lines that are not JSON are judged as a whole too. A reply that is longer than
    ``MAX_CHARACTERS`` is cut there.

    Args:
        reply: of a language model.
        category: harm category that it was asked about.
        about: what else it was asked about; judged together with every string and line.
    """

    def hit(text: str) -> bool:
        return is_excluded(text, *about, category=category)

    def masked(match: re.Match[str]) -> str:
        return f'"{WITHHELD}"' if hit(_unquoted(match.group())) else match.group()

    lines = _with_strings(masked, reply[:MAX_CHARACTERS]).split("\n")
    return "\n".join(
        WITHHELD if not _is_json(line) and hit(_plain(line)) else line for line in lines
    )


def _unquoted(literal: str) -> str:
    """What a string literal says, whose letters may be written as escapes."""
    try:
        return str(json.loads(literal, strict=False))
    except ValueError:
        return literal


def _is_json(line: str) -> bool:
    """Whether nothing but punctuation stands between the strings, so that each is a text."""
    return not _with_strings(lambda match: "", line).strip(" \t[]{},:")


def _plain(line: str) -> str:
    return _with_strings(lambda match: _unquoted(match.group()), line)


def _with_strings(replace: Callable[[re.Match[str]], str], text: str) -> str:
    """``_STRING.sub``, which would take hours for a string of many quotes that never ends."""
    pieces, end = [], 0
    while (begin := text.find('"', end)) >= 0 and (match := _STRING.match(text, begin)):
        pieces += [text[end:begin], replace(match)]
        end = match.end()
    return "".join([*pieces, text[end:]])
