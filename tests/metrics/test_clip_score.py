"""CLIPScore by hand."""

import numpy as np
import pytest

from safetydpo_kedro.metrics.clip_score import clip_scores, mean_clip_score


def test_by_hand():
    images = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    texts = np.array([[1.0, 0.0], [1.0, 1.0], [-5.0, 0.0]])
    scores = clip_scores(images, texts)
    np.testing.assert_allclose(scores, [60, 100 / np.sqrt(2), -100])
    assert mean_clip_score(scores) == pytest.approx((60 + 100 / np.sqrt(2) - 100) / 3)


def test_only_the_mean_is_floored():
    assert mean_clip_score(np.array([-30.0, 10.0])) == 0.0
    assert mean_clip_score(np.array([-10.0, 30.0])) == 10.0
    assert np.isnan(mean_clip_score(np.array([])))


def test_refuses_unpaired_embeddings():
    with pytest.raises(ValueError, match=r"\(3, 2\) and texts \(2, 2\)"):
        clip_scores(np.ones((3, 2)), np.ones((2, 2)))
