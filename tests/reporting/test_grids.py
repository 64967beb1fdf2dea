"""Grids show what they should and hide what they must."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageDraw

from safetydpo_kedro.reporting.grids import (
    blur_image,
    contact_sheet,
    progress_grid,
    qualitative_grid,
)


def render(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def high_frequency_energy(image):
    """Energy above two cycles per image, the mean colour left out."""
    spectrum = np.abs(np.fft.fft2(image.astype(float).mean(axis=2))) ** 2
    frequency = np.fft.fftfreq(image.shape[0]) * image.shape[0]
    return spectrum[np.hypot(frequency[:, None], frequency) > 2].sum()


def written(word, side):
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).text((2, side // 3), word, fill="black", font_size=side // 4)
    return np.asarray(image)


@pytest.mark.parametrize("side", [32, 128, 512])
def test_blur_destroys_detail_at_every_size(side):
    image = written("KNIFE", side)
    blurred = blur_image(image)
    assert blurred.shape == image.shape
    assert high_frequency_energy(blurred) < 0.01 * high_frequency_energy(image)


def test_blurred_words_cannot_be_told_apart():
    words = [written(word, 128) for word in ("KNIFE", "SPOON")]
    sharp = np.abs(words[0].astype(int) - words[1]).mean()
    blurred = np.abs(blur_image(words[0]).astype(int) - blur_image(words[1])).mean()
    assert blurred < 0.2 * sharp


def test_grid_shows_pixels_crisp_and_blurs_by_default():
    image = np.zeros((32, 32, 3), np.uint8)
    image[::2] = (10, 200, 30)
    rows = {"base": np.stack([image] * 3), "co_merge": np.stack([image] * 3)}
    sharp = render(qualitative_grid(rows, ["a prompt"] * 3, blur="none"))
    assert (sharp == (10, 200, 30)).all(axis=2).sum() == 6 * 48 * 96
    blurred = render(qualitative_grid(rows, ["a prompt"] * 3))
    assert not (blurred == (10, 200, 30)).all(axis=2).any()


def test_only_flagged_images_are_blurred_and_framed():
    image = np.zeros((32, 32, 3), np.uint8)
    image[::2] = (10, 200, 30)
    rows = {"base": np.stack([image] * 2)}
    shown = render(qualitative_grid(rows, blur="flagged", flagged={"base": [True, False]}))
    assert (shown == (10, 200, 30)).all(axis=2).sum() == 48 * 96
    assert (shown == (200, 30, 30)).all(axis=2).sum() > 4 * 96


def test_contact_sheet_fills_rows():
    images = np.full((10, 32, 32, 3), (10, 200, 30), np.uint8)
    sheet = render(contact_sheet(images, [f"image {i}" for i in range(10)], columns=4, blur="none"))
    cell = 96 + 12
    assert sheet.shape[1] == 4 * cell
    assert sheet.shape[0] == 3 * (cell + 15)
    assert (sheet == (10, 200, 30)).all(axis=2).sum() == 10 * 96 * 96


def test_refuses_ragged_input():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="equally many"):
        qualitative_grid({"base": images, "linear": images[:1]})
    with pytest.raises(ValueError, match="got 1"):
        qualitative_grid({"base": images}, ["one"])
    with pytest.raises(ValueError, match="got 0 images"):
        contact_sheet(images[:0])
    with pytest.raises(ValueError, match="blur='flagged'"):
        contact_sheet(images, blur="flagged")


def test_large_images_are_reduced():
    images = np.random.default_rng(0).integers(0, 256, (2, 512, 768, 3), dtype=np.uint8)
    assert render(contact_sheet(images, columns=2)).shape == (170 + 12, 2 * (256 + 12), 3)


def test_progress_is_blurred_by_default_and_may_have_no_images():
    rows = {f"step {step}": written("GUN", 64)[None] for step in (0, 10)}
    hidden, shown = (
        render(progress_grid(rows, ["gun"], blur))[-80:, -80:] for blur in ("all", "none")
    )
    assert high_frequency_energy(hidden) < 0.1 * high_frequency_energy(shown)
    assert render(progress_grid({}, [])).min() < 128  # there is a line of text
