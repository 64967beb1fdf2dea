"""Temporaries that killed processes have left beside artifacts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

RANDOM = r"[a-z0-9_]{8}"  # what tempfile puts at the end of a name


def remove_leftovers(path: Path) -> list[Path]:
    """Remove temporaries of a file or folder, of its manifest, and of files in the folder.

    Nobody else may write the artifact meanwhile.

    Returns:
        What was removed.
    """
    path = Path(path)
    beside = re.compile(rf"\.{re.escape(path.name)}(\.manifest\.json)?\.{RANDOM}")
    inside = re.compile(rf"\..+\.{RANDOM}")
    found = [p for p in _entries(path.parent) if beside.fullmatch(p.name)]
    found += [p for p in _entries(path) if inside.fullmatch(p.name)]
    for leftover in found:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return found


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
