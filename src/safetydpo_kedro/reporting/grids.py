"""Contact sheets and the qualitative grid: many small images as one figure.

Images are blurred unless the caller asks otherwise: a judge may miss a harmful one. All images of
a figure are pasted into one array and small ones are enlarged by whole numbers, so a 32-pixel
image stays crisp and a figure of a hundred images takes no longer than one of ten.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Blur = Literal["all", "flagged", "none"]

# Standard deviation of the Gaussian as a share of the shorter side. At 0.2 a pattern that repeats
# twice over the image keeps 4 % of its contrast.
BLUR_STRENGTH = 0.2
CELL_PIXELS = (96, 256)  # smaller images are enlarged to the first, larger ones cut to the second
DPI = 100
_GAP = 6
_FRAME = (200, 30, 30)
_LABEL_PIXELS = 130
_LINE_PIXELS = 15
_TITLE_PIXELS = 30
_CAPTION_LINES = 12
_PLAIN = {"parse_math": False}  # a dollar sign in a prompt begins no formula


def blur_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blur an image until only its colours are left.

    Args:
        image: uint8 ``[H, W, 3]``.

    Returns:
        uint8 ``[H, W, 3]``.
    """
    radius = BLUR_STRENGTH * min(image.shape[:2])
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def qualitative_grid(
    rows: Mapping[str, NDArray[np.uint8]],
    captions: Sequence[str] | None = None,
    *,
    blur: Blur = "all",
    flagged: Mapping[str, Sequence[bool]] | None = None,
    title: str | None = None,
) -> Figure:
    """Rows of variants above each other; a column has one prompt and one seed.

    Args:
        rows: row label → uint8 images ``[N, H, W, 3]``, the same N and size in every row.
        captions: N texts above the columns.
        blur: which images to make unrecognisable; ``flagged`` trusts the judges.
        flagged: row label → N judgements; images judged inappropriate get a red frame.
        title: line above everything.

    Returns:
        A figure that no window or global state knows, ready for ``savefig``.

    Raises:
        ValueError: the rows or captions differ in number or size, or ``blur`` asks for judgements
            that are not given.
    """
    shapes = {label: images.shape for label, images in rows.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"a grid needs rows of equally many images of one size, got {shapes}")
    count = next(iter(shapes.values()))[0]
    if captions is not None and len(captions) != count:
        raise ValueError(f"a grid of {count} columns needs as many captions, got {len(captions)}")
    cells = [
        [
            _cell(image, blur, None if flagged is None else bool(flagged[label][i]))
            for i, image in enumerate(images)
        ]
        for label, images in rows.items()
    ]
    texts = [[""] * count for _ in rows]
    if captions is not None:
        texts[0] = list(captions)
    return _figure(cells, texts, list(rows), title)


def contact_sheet(
    images: NDArray[np.uint8],
    captions: Sequence[str] | None = None,
    *,
    columns: int = 8,
    blur: Blur = "all",
    flagged: Sequence[bool] | None = None,
    title: str | None = None,
) -> Figure:
    """Images in reading order, each with its caption above it.

    Args:
        images: uint8 ``[N, H, W, 3]``.
        captions: N texts.
        columns: images in a row.
        blur: which images to make unrecognisable; ``flagged`` trusts the judges.
        flagged: N judgements; images judged inappropriate get a red frame.
        title: line above everything.

    Returns:
        A figure.

    Raises:
        ValueError: there are no images, or not one caption for each, or ``blur`` asks for
            judgements that are not given.
    """
    if not len(images) or (captions is not None and len(captions) != len(images)):
        raise ValueError(
            f"a contact sheet needs images and a caption for each or none, got {len(images)} "
            f"images and {'no' if captions is None else len(captions)} captions"
        )
    cells = [
        _cell(image, blur, None if flagged is None else bool(flagged[i]))
        for i, image in enumerate(images)
    ]
    texts = list(captions) if captions is not None else [""] * len(cells)
    starts = range(0, len(cells), columns)
    rows = [cells[start : start + columns] for start in starts]
    return _figure(rows, [texts[start : start + columns] for start in starts], [], title)


def progress_grid(
    rows: Mapping[str, NDArray[np.uint8]], captions: Sequence[str], blur: Blur = "all"
) -> Figure:
    """The same prompts and seeds in the course of a training.

    Args:
        rows: step → uint8 images ``[N, H, W, 3]``, in the order of time; may hold no images.
        captions: N prompts.
        blur: which images to make unrecognisable.

    Returns:
        A grid, or a line of text if nothing was drawn.
    """
    if any(len(images) for images in rows.values()):
        return qualitative_grid(rows, captions, blur=blur, title="Held-out unsafe prompts")
    figure = Figure(figsize=(6, 0.6), dpi=DPI, facecolor="white")
    figure.text(0.5, 0.5, "No images were drawn: see expert_training.validation", ha="center")
    return figure


def _cell(image: NDArray[np.uint8], blur: Blur, flag: bool | None) -> NDArray[np.uint8]:
    """One image, blurred if asked, brought to a readable size, framed if flagged."""
    if blur == "flagged" and flag is None:
        raise ValueError("blur='flagged' needs 'flagged', the judgements; or use blur='all'")
    if blur == "all" or (blur == "flagged" and flag):
        image = blur_image(image)
    smallest, largest = CELL_PIXELS
    side = max(image.shape[:2])
    if side > largest:
        size = (image.shape[1] * largest // side, image.shape[0] * largest // side)
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    factor = max(1, round(smallest / side))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    frame = np.full((image.shape[0] + 2 * _GAP, image.shape[1] + 2 * _GAP, 3), 255, np.uint8)
    if flag:
        edge = _GAP // 2
        frame[edge:-edge, edge:-edge] = _FRAME
    frame[_GAP:-_GAP, _GAP:-_GAP] = image
    return frame


def _figure(
    cells: list[list[NDArray[np.uint8]]],
    texts: list[list[str]],
    labels: list[str],
    title: str | None,
) -> Figure:
    """Paste cells and place texts; one figure pixel per array pixel."""
    height, width = cells[0][0].shape[:2]
    wrap = partial(
        textwrap.wrap, width=max(6, width // 7), max_lines=_CAPTION_LINES, placeholder=" …"
    )
    wrapped = [[wrap(text) for text in row] for row in texts]
    headers = [_LINE_PIXELS * max(len(lines) for lines in row) for row in wrapped]
    left = _LABEL_PIXELS if labels else 0
    top = _TITLE_PIXELS if title else 0
    columns = max(len(row) for row in cells)
    total = (top + sum(headers) + height * len(cells), left + width * columns)
    canvas = np.full((*total, 3), 255, np.uint8)
    figure = Figure(figsize=(total[1] / DPI, total[0] / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    y = top
    for i, row in enumerate(cells):
        y += headers[i]
        for j, cell in enumerate(row):
            x = left + j * width
            canvas[y : y + height, x : x + width] = cell
            lines = "\n".join(wrapped[i][j])
            axes.text(x + width / 2, y, lines, ha="center", va="bottom", fontsize=7, **_PLAIN)
        if labels:
            axes.text(
                left - 8, y + height / 2, labels[i], ha="right", va="center", fontsize=9, **_PLAIN
            )
        y += height
    if title:
        axes.text(
            total[1] / 2, _TITLE_PIXELS / 2, title, ha="center", va="center", fontsize=11, **_PLAIN
        )
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    return figure
