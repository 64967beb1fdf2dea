"""Mounts file systems, where that is allowed."""

from __future__ import annotations

import os
import subprocess

import pytest


def mount(*arguments: str) -> None:
    """Run ``mount``; skip the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount file systems")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
