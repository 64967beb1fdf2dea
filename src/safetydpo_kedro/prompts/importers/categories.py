"""Categories of harm, in whatever spelling a file has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


class Categories:
    """Finds the canonical name of a category.

    Case, spaces and punctuation do not matter; other spellings are aliases.

    Args:
        names: the canonical names.
        aliases: other spelling → canonical name.

    Raises:
        ValueError: an alias for a category that there is not.

    Example:
        >>> categories = Categories(["self_harm", "harassment"], {"Harrasment": "harassment"})
        >>> categories.find("Self-Harm"), categories.find(" harrasment"), categories.find("cats")
        ('self_harm', 'harassment', None)
    """

    def __init__(self, names: Sequence[str], aliases: Mapping[str, str] | None = None) -> None:
        self.names = tuple(names)
        aliases = aliases or {}
        unknown = sorted(set(aliases.values()) - set(names))
        if unknown:
            raise ValueError(
                f"category_aliases: there are no categories {unknown}; there are {list(names)}"
            )
        spellings = {**{name: name for name in names}, **aliases}
        self._found = {_key(spelling): name for spelling, name in spellings.items()}

    def find(self, spelling: str) -> str | None:
        """Canonical name of a category, ``None`` if it is not known."""
        return self._found.get(_key(spelling))

    def find_all(self, spellings: str) -> list[str | None]:
        """Canonical names of categories that are separated by commas; empty for no text."""
        return [self.find(part) for part in spellings.split(",") if part.strip()]


def _key(spelling: str) -> str:
    return re.sub(r"[\W_]+", "", spelling.casefold())
