"""What the documentation tells readers to type: its blocks of commands and of Python.

A line ``# needs …`` says what a command needs that a reader may not have, such as a GPU: at the
top of a block for all of it, at the end of a line for this line. ``# an excerpt`` at the top of a
block of Python says that it is a part of a file.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"# needs (.+)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of the page, from the repository's root.
        line: number of its first line, from 1.
        language: behind the fence.
        text: without the indentation of the fence.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def is_excerpt(self) -> bool:
        """Whether it is a part of a file, and not to be run."""
        return self.text.startswith("# an excerpt")

    @property
    def commands(self) -> list[Command]:
        """Commands of a block of bash, one for each line that is not continued."""
        common = NEEDS.match(self.text)
        found = []
        for line in self.text.replace("\\\n", " ").splitlines():
            own = common or NEEDS.search(line)
            if words := shlex.split(line, comments=True):
                found.append(Command(tuple(words), own[1] if own else None))
        return found


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        words: program and arguments.
        needs: what a reader may not have; None: nothing.
    """

    words: tuple[str, ...]
    needs: str | None

    def __str__(self) -> str:
        return shlex.join(self.words)


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in its order."""
    text = (ROOT / page).read_text("utf-8")
    return [
        Block(page, text[: match.start()].count("\n") + 2, match[2], _dedent(match[3], match[1]))
        for match in BLOCK.finditer(text)
    ]


def _dedent(text: str, indent: str) -> str:
    return "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))
