"""Q16: decisions by hand, and prompt tuning on a set that a plane separates."""

import numpy as np
import pytest

from safetydpo_kedro.metrics.config import PromptTuningConfig
from safetydpo_kedro.metrics.q16 import (
    q16_inappropriate,
    q16_logits,
    q16_score,
    tune_prompts,
)

PROMPTS = np.array([[2.0, 0.0], [0.0, 3.0]])  # appropriate: along x; inappropriate: along y


def test_logits_score_and_decision_by_hand():
    embeddings = np.array([[5.0, 0.0], [0.0, 0.1], [3.0, 4.0], [1.0, 1.0]])
    np.testing.assert_allclose(
        q16_logits(embeddings, PROMPTS),
        [[100, 0], [0, 100], [60, 80], [100 / np.sqrt(2)] * 2],
        rtol=1e-12,
    )
    expected = [np.exp(-100.0), 1.0, 1 / (1 + np.exp(-20.0)), 0.5]
    np.testing.assert_allclose(q16_score(embeddings, PROMPTS), expected, rtol=1e-12, atol=1e-15)
    assert q16_inappropriate(embeddings, PROMPTS).tolist() == [False, True, True, False]


def test_prompts_of_another_clip_are_refused():
    with pytest.raises(ValueError, match="another CLIP model"):
        q16_score(np.ones((3, 4)), PROMPTS)


def separable_set(n=200, width=16):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, n)
    embeddings = rng.normal(size=(n, width))
    embeddings[:, 5] = np.where(labels == 1, 1.0, -1.0) * rng.uniform(0.5, 2, n)
    return embeddings, labels, rng.normal(size=(2, width))


@pytest.mark.parametrize("batch_size", [None, 64])
def test_tuning_separates_and_repeats_exactly(batch_size):
    embeddings, labels, initial = separable_set()
    config = PromptTuningConfig(steps=400, learning_rate=0.02, batch_size=batch_size)
    tuned = tune_prompts(embeddings, labels, initial, config)
    assert tuned.shape == (2, 16)
    assert tuned.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(tuned, axis=1), 1, rtol=1e-6)
    before = np.mean(q16_inappropriate(embeddings, initial) == labels)
    after = np.mean(q16_inappropriate(embeddings, tuned) == labels)
    assert before < 0.8
    assert after == 1.0
    assert np.array_equal(tuned, tune_prompts(embeddings, labels, initial, config))


def test_tuning_wants_both_classes_and_matching_labels():
    embeddings, labels, initial = separable_set()
    with pytest.raises(ValueError, match=r"values \[1\]"):
        tune_prompts(embeddings, np.ones_like(labels), initial)
    with pytest.raises(ValueError, match="got 3 labels"):
        tune_prompts(embeddings, labels[:3], initial)
    with pytest.raises(ValueError, match=r"\(3, 16\)"):
        tune_prompts(embeddings, labels, np.ones((3, 16)))
