"""Where free places go."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.attacks.scene import Goal
from safetydpo_kedro.attacks.template import Template

tokens = st.lists(st.integers(1, 99), min_size=1, max_size=4)
words = st.lists(tokens, min_size=1, max_size=8).map(lambda rows: [torch.tensor(r) for r in rows])


@given(words, st.integers(1, 4), st.integers(1, 40), st.data())
def test_everything_but_the_free_places_stays(prompt, every, limit, data):
    template = Template.interleaved(prompt, every, limit)
    filling = torch.full((1, len(template)), -1)
    (filled,) = template.fill(filling).tolist()
    assert len(filled) <= limit and filled.count(-1) == len(template)
    rest = [token for token in filled if token != -1]
    assert rest == torch.cat(prompt).tolist()[: len(rest)]
    # One free place before every `every` words, and none within a word.
    expected = [-1 if w is None else w for w in _interleave(prompt, every)][:limit]
    assert filled == expected


def _interleave(prompt, every):
    for i, word in enumerate(prompt):
        if i % every == 0:
            yield None
        yield from word.tolist()


@given(words, st.integers(1, 3), st.data())
def test_replaced_words_are_gone(prompt, places, data):
    gone = data.draw(st.lists(st.booleans(), min_size=len(prompt), max_size=len(prompt)))
    template = Template.in_place_of(prompt, gone, places, limit=100)
    (filled,) = template.fill(torch.full((1, len(template)), -1)).tolist()
    expected = []
    for word, away in zip(prompt, gone, strict=True):
        expected += [-1] * places if away else word.tolist()
    assert filled == expected


def test_embeddings_stand_at_the_free_places_and_take_gradients():
    table = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    template = Template.interleaved([torch.tensor([4, 5]), torch.tensor([6])], 1, limit=10)
    embeddings = torch.randn(2, 2, 3, requires_grad=True)
    wide = template.embed(table, embeddings)
    assert torch.equal(
        wide[1], torch.stack([embeddings[1, 0], *table[[4, 5]], embeddings[1, 1], table[6]])
    )
    (wide * wide.detach()).sum().backward()
    assert torch.equal(embeddings.grad, embeddings.detach())


def test_prefixes_and_blanks_are_cut_at_the_limit():
    ids = torch.tensor([7, 8, 9])
    assert Template.prefix(ids, 2, limit=4).fill(torch.tensor([[1, 2]])).tolist() == [[1, 2, 7, 8]]
    assert len(Template.blank(16, limit=14)) == 14


def test_sensitive_words_are_what_the_counterpart_lacks():
    prompt = "a red picture of Raging face"
    assert Goal("1", prompt, 0, safe_prompt="a red picture of happy face").sensitive_words == [
        "raging"
    ]
    assert Goal("1", prompt, 0).sensitive_words == prompt.casefold().split()
