"""An open_clip directory as a catalog entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

from safetydpo_kedro.datasets import ClipModelDataset

from ..worlds import tiny_clip


def test_a_saved_model_embeds_as_before(tmp_path):
    model, config, tokenizer = tiny_clip()
    dataset = ClipModelDataset(filepath=str(tmp_path / "clip"), batch_size=2)
    assert not dataset.exists()
    dataset.save((model, config, tokenizer))
    clip = dataset.load()
    tokens = tokenizer("a knife", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model.eval().encode_text(tokens)
    np.testing.assert_allclose(
        clip.encode_texts(["a knife"], normalize=False), expected.numpy(), atol=1e-5
    )
    assert clip.batch_size == 2 and dataset.fingerprint_options == {"precision": "fp32"}


def test_a_missing_directory_is_named_with_the_remedy(tmp_path):
    dataset = ClipModelDataset(filepath=str(tmp_path / "clip"), hint="Make it by hand.")
    with pytest.raises(DatasetError, match=r"clip \(open_clip_config.json.*Make it by hand"):
        dataset.load()
