"""What all tests share: one thread, so that small tensors are quick and results repeat."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from .s3_server import s3, s3_settings  # noqa: F401
from .small_run import finished_run  # noqa: F401  (a fixture of all tests)

torch.set_num_threads(1)


@pytest.fixture
def red_png() -> bytes:
    """A 4x4 red image, encoded as PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()
