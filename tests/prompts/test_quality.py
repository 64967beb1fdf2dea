from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.prompts.quality import measure_pairs, token_jaccard


def test_measures_by_hand():
    pairs = pd.DataFrame(
        {"unsafe_prompt": ["a knife on a table", "x"], "safe_prompt": ["A spoon, on a table!", "x"]}
    )
    vectors = {"a knife on a table": [1, 0], "A spoon, on a table!": [0.6, 0.8], "x": [0, 1]}
    table = measure_pairs(pairs, lambda texts: np.array([vectors[t] for t in texts], np.float32))
    assert list(table["token_jaccard"]) == [0.6, 1.0]
    assert list(table["embedding_similarity"]) == pytest.approx([0.6, 1.0])
    assert list(table["unsafe_words"]) == [5, 1]
    assert list(table["safe_words"]) == [5, 1]
    pd.testing.assert_frame_equal(table[pairs.columns], pairs)


@given(st.text(), st.text())
def test_jaccard_is_a_symmetric_share(first, second):
    share = token_jaccard(first, second)
    assert 0 <= share <= 1
    assert share == token_jaccard(second, first)
    assert token_jaccard(first, first.upper() if first.isascii() else first) == 1
