import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.parameters import SplitParameters
from safetydpo_kedro.prompts.split import normalise, split_prompts


def table(rows):
    return pd.DataFrame(rows, columns=["concept", "group", "prompt"])


words = st.sampled_from(["Red knife", "red  knife!", "a spoon", "A SPOON", "bomb", "the moon"])


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["g1", "g2", "g3"]), words), min_size=1
    ),
    st.floats(0.05, 0.95),
)
def test_no_group_and_no_prompt_stands_on_both_sides(rows, share):
    rows += [(concept, group, "filler") for concept in "ab" for group in ("g1", "g2")]
    train, test = split_prompts(table(rows), ["prompt"], SplitParameters(test_share=share))
    both = set(zip(train["concept"], train["group"], strict=True)) & set(
        zip(test["concept"], test["group"], strict=True)
    )
    assert not both
    assert not {normalise(p) for p in train["prompt"]} & {normalise(p) for p in test["prompt"]}


def test_caps_hold_per_concept_and_the_split_is_reproducible():
    rows = table([(c, f"g{i}", f"{c} {i}") for c in "ab" for i in range(10)])
    parameters = SplitParameters(test_share=0.3, train_per_concept=4, test_per_concept=2, seed=3)
    train, test = split_prompts(rows, ["prompt"], parameters)
    assert train.groupby("concept").size().tolist() == [4, 4]
    assert test.groupby("concept").size().tolist() == [2, 2]
    again = split_prompts(rows, ["prompt"], parameters)
    pd.testing.assert_frame_equal(train, again[0])
    pd.testing.assert_frame_equal(test, again[1])


def test_a_concept_with_one_group_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="concept 'knife' has one group"):
        split_prompts(table([("knife", "g", "x")]), ["prompt"], SplitParameters())
