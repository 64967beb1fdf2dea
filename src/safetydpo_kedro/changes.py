"""What differs between two JSON-like mappings, field by field, for people to read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from safetydpo_kedro.artifacts import fingerprint

DIGEST = re.compile(r"[0-9a-f]{32,}")
SHOWN_DIGITS = 12
NOT_SET = object()


def list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Changed fields as ``name: old → new``, down to single keys of nested mappings.

    Values are compared by their JSON form: a tuple equals the list of the same items, a pydantic
    model equals its values, and 1 is not 1.0. Digests are shown by their first 12 digits.

    Args:
        before: field → value; a value may be a mapping, a pydantic model or anything JSON-like.
        after: the same.

    Returns:
        One text per changed field, in the order of ``before``; empty if nothing differs.

    Example:
        >>> list_changes({"size": 2, "lora": {"rank": 4}}, {"size": 2, "lora": {"rank": 8}})
        ['lora.rank: 4 → 8']
    """
    old, new = _flat(before), _flat(after)
    changes = []
    for path in dict.fromkeys([*old, *new]):
        was, now = old.get(path, NOT_SET), new.get(path, NOT_SET)
        if was is NOT_SET or now is NOT_SET or fingerprint(was) != fingerprint(now):
            changes.append(f"{'.'.join(path)}: {_shown(was)} → {_shown(now)}")
    return changes


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    is_leaf = not isinstance(value, Mapping) or (path and not value)
    if is_leaf:
        return {path: value}
    flat: dict[tuple[str, ...], Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, (*path, str(key)))
    return flat


def _shown(value: Any) -> str:
    text = "not set" if value is NOT_SET else str(value)
    return DIGEST.sub(lambda digest: f"{digest[0][:SHOWN_DIGITS]}…", text)
