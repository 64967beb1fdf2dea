"""All ways of drawing that are timed draw the same images, and the adapter is in them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.sampling import BASE, OFFICIAL, Difference, Drawing, Setting, difference, rows
from safetydpo_kedro.parameters import SamplingParameters

SAMPLING = SamplingParameters(steps=2, guidance_scale=2.0)
SETTING = Setting("sd15", 3, (1, 3), SAMPLING, rounds=1, strength=1.0, tiny=True)


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    return Drawing(SETTING)


def test_both_ways_draw_the_same_to_a_grey_level(drawing):
    ours, stock = drawing.project(3, drawing.adapter), drawing.one_by_one()
    assert ours.shape == stock.shape == (3, 64, 64, 3)
    assert difference(stock, ours).levels <= 1


def test_the_adapter_changes_what_is_drawn(drawing):
    assert difference(drawing.project(3, None), drawing.project(3, drawing.adapter)).levels > 1


def test_differences_count_values_and_images():
    images = np.full((2, 2, 2, 3), 250, np.uint8)
    others = images.copy()
    others[1, 0, 0] = 255, 249, 250
    assert difference(images, others) == Difference(levels=5, values=2 / 24, images=1, total=2)
    assert str(difference(images, images)) == "identical"


def test_the_table_compares_with_the_usual_script():
    table = {row[4]: row for row in rows(SETTING)}
    assert list(table) == [OFFICIAL, "project, 1 at once", "project, 3 at once", BASE]
    assert table[OFFICIAL][5] == "1.00"
    assert float(table["project, 3 at once"][5]) > 0
