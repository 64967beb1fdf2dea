"""Parameters that nothing reads are refused."""

from __future__ import annotations

import pytest

from safetydpo_kedro.hooks.parameters import check_keys

READ = {"evaluation.drawing", "evaluation.judges", "merging.strategies.linear"}


def test_what_is_read_is_not_looked_into():
    check_keys("evaluation", {"drawing": {"anything": 1}, "judges": None}, READ)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        (
            "evaluation",
            {"drawin": {"steps": 2}},
            r"'evaluation.drawin' = \{'steps': 2\}.*'drawing'",
        ),
        ("merging", {"strategies": {"ties": 1}}, "'merging.strategies.ties' = 1.*are linear"),
        ("merging", {"colour": "red"}, "'merging.colour' = 'red'.*correct or remove it"),
    ],
)
def test_an_unknown_key_is_named_with_its_value_and_the_known_ones(section, value, message):
    with pytest.raises(ValueError, match=message):
        check_keys(section, value, READ)
