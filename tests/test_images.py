"""Batches of images of several sizes."""

from __future__ import annotations

import numpy as np

from safetydpo_kedro.images import decode_batches, encode_images


def test_batches_keep_the_order_and_end_where_the_size_changes():
    rng = np.random.default_rng(0)
    sizes = [(4, 4)] * 3 + [(4, 6)] + [(4, 4)] * 2
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    encoded = [encode_images(image[None], ["x"])[0] for image in images]
    batches = list(decode_batches(encoded, batch_size=2))
    assert [batch.shape[:3] for batch in batches] == [(2, 4, 4), (1, 4, 4), (1, 4, 6), (2, 4, 4)]
    for image, decoded in zip(images, (i for batch in batches for i in batch), strict=True):
        np.testing.assert_array_equal(image, decoded)
    assert list(decode_batches([])) == []
