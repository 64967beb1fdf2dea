"""What Kedro-Viz shows of this project's own data sets; images are blurred unless told otherwise.

Kedro-Viz calls ``preview`` of a data set and takes the kind of preview from its return annotation.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kedro_datasets._typing import ImagePreview, TablePreview

if TYPE_CHECKING:
    import pandas as pd

    from safetydpo_kedro.reporting.grids import Blur

SHEET_COLUMNS = 6


def preview_tensors(path: Path) -> TablePreview:
    """Name, shape and dtype of every tensor in a safetensors file; only its header is read."""
    import pandas as pd
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        rows = [(name, str(s.get_shape()), s.get_dtype()) for name, s in slices.items()]
    return preview_table(pd.DataFrame(rows, columns=["tensor", "shape", "dtype"]))


def preview_table(table: pd.DataFrame) -> TablePreview:
    """A table in the form that Kedro-Viz expects; missing values are empty cells."""
    return TablePreview(table.astype(object).where(table.notna(), "").to_dict(orient="split"))


def preview_images(table: pd.DataFrame, image_columns: Sequence[str], blur: Blur) -> ImagePreview:
    """A contact sheet: the images of a row stand beside each other.

    Args:
        table: a few rows.
        image_columns: columns with encoded images; the prompt of ``unsafe_image`` is in
            ``unsafe_prompt``.
        blur: ``all`` or ``none``.

    Returns:
        Base64 text of a PNG.
    """
    from safetydpo_kedro.images import decode_images
    from safetydpo_kedro.reporting.grids import DPI, contact_sheet

    rows = table.to_dict(orient="records")
    images = decode_images([row[column] for row in rows for column in image_columns])
    prompts = [column.replace("image", "prompt") for column in image_columns]
    texts = [str(row.get(prompt, "")) for row in rows for prompt in prompts]
    figure = contact_sheet(images, texts, columns=SHEET_COLUMNS, blur=blur)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return ImagePreview(base64.b64encode(buffer.getvalue()).decode())
