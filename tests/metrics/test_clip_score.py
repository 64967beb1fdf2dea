"""CLIPScore by hand and as torchmetrics has it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.multimodal import CLIPScore

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


class Embeddings(torch.nn.Module):
    """A CLIP "model" whose embeddings are known: those of texts by number, of images as given."""

    config = SimpleNamespace()

    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def get_image_features(self, pixels):
        return pixels.flatten(1)

    def get_text_features(self, tokens, mask):
        return self.texts[tokens]


def processor(images=None, text=None, **options):
    if images is not None:
        return {"pixel_values": torch.stack(images)}
    tokens = torch.tensor([int(number) for number in text])
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


@pytest.mark.parametrize("direction", [1, -1])
def test_equals_torchmetrics(direction):
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(10, 12))
    images = direction * texts + rng.normal(size=(10, 12))
    metric = CLIPScore(lambda: (Embeddings(torch.from_numpy(texts)), processor))
    for chosen in (slice(0, 4), slice(4, 10)):
        numbers = [str(i) for i in range(10)[chosen]]
        metric.update(torch.from_numpy(images[chosen]).view(-1, 3, 2, 2), numbers)
    ours = mean_clip_score(clip_scores(images, texts))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)
    assert (ours > 20) == (direction > 0)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_lengths_do_not_matter_and_scores_stay_in_their_range(seed, scale, other):
    images, texts = np.random.default_rng(seed).normal(size=(2, 5, 3))
    scores = clip_scores(images, texts)
    assert (np.abs(scores) <= 100 + 1e-9).all()
    np.testing.assert_allclose(clip_scores(scale * images, other * texts), scores, atol=1e-9)
    np.testing.assert_allclose(clip_scores(texts, -images), -scores, atol=1e-9)
