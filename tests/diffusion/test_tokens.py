"""Conditioning from tokens, against the stock pipelines; words that come back as they were."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.architectures import ARCHITECTURES, random_pipeline
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.diffusion.tokens import Vocabulary, split_embeddings, token_table

PROMPTS = ["knife on a blue background", "a red picture of spoon"]


@pytest.fixture(params=list(ARCHITECTURES), scope="module")
def model(request):
    return diffusion_model(random_pipeline(request.param, tiny=True))


@pytest.fixture(scope="module")
def vocabulary(model):
    return Vocabulary(model.text_towers)


@pytest.fixture(scope="module")
def ids(vocabulary):
    rows = [vocabulary.encode(prompt) for prompt in PROMPTS]
    return torch.stack([row[:5] for row in rows])


def test_tokens_of_a_prompt_condition_as_the_prompt_does(model, vocabulary):
    for prompt in ("knife on a blue background", "", "knife " * 200):
        expected = model.encode_prompts([prompt])
        found = model.encode_tokens(vocabulary.encode(prompt)[None])
        assert found.tensors.keys() == expected.tensors.keys()
        for name, tensor in found.tensors.items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)


def test_the_tables_rows_in_place_of_tokens_change_nothing(model, ids):
    table = token_table(model.text_towers)
    width = sum(tower.table.shape[1] for tower in model.text_towers)
    assert table.shape == (model.text_towers[0].encoder.config.vocab_size, width)
    plain, replaced = model.encode_tokens(ids), model.encode_tokens(ids, table[ids])
    other = model.encode_tokens(ids, table[ids.flip(1)])
    for name in plain.tensors:
        assert torch.equal(plain[name], replaced[name])
        assert not torch.allclose(plain[name], other[name])
        # Nothing is left of the replacement.
        assert torch.equal(model.encode_tokens(ids)[name], plain[name])


def test_gradients_reach_the_embeddings_of_every_tower(model, ids):
    embeddings = token_table(model.text_towers)[ids].requires_grad_()
    torch.manual_seed(0)
    conditioning = model.encode_tokens(ids, embeddings)
    weights = {name: torch.randn_like(tensor) for name, tensor in conditioning.tensors.items()}

    def score(wide: torch.Tensor) -> torch.Tensor:
        found = model.encode_tokens(ids, wide)
        return sum((found[name] * weight).sum() for name, weight in weights.items())

    score(embeddings).backward()
    for part in split_embeddings(model.text_towers, embeddings.grad):
        assert (part.abs().amax(dim=-1) > 0).all()
    # Against a central difference along the gradient itself.
    direction = embeddings.grad / embeddings.grad.norm()
    step = 1e-2
    with torch.no_grad():
        plus, minus = score(embeddings + step * direction), score(embeddings - step * direction)
    slope = (plus - minus) / (2 * step)
    torch.testing.assert_close(slope, embeddings.grad.norm(), rtol=2e-2, atol=1e-3)


def test_gradients_go_on_through_the_denoiser(model, ids):
    embeddings = token_table(model.text_towers)[ids].requires_grad_()
    side, channels = model.unet.config.sample_size, model.unet.config.in_channels
    noisy = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    prediction = model.predict(noisy, torch.tensor([3, 700]), model.encode_tokens(ids, embeddings))
    prediction.square().sum().backward()
    for part in split_embeddings(model.text_towers, embeddings.grad):
        assert (part.abs().amax(dim=-1) > 0).all()
    assert all(parameter.grad is None for parameter in model.unet.parameters())


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_words_come_back_as_the_same_tokens(vocabulary, data):
    chosen = data.draw(st.lists(st.sampled_from(vocabulary.ids.tolist()), max_size=14))
    ids = torch.tensor(chosen[: vocabulary.limit], dtype=torch.int64)
    assert vocabulary.encode(vocabulary.decode(ids)).tolist() == ids.tolist()


def test_forbidden_words_are_no_longer_there(vocabulary):
    word = next(word for word in vocabulary.words if len(word) > 3)
    left = vocabulary.allowed([word.upper()])
    assert len(left) == len(vocabulary.ids) - 1
    assert vocabulary.encode(word).item() not in left
    with pytest.raises(ValueError, match="forbidden"):
        vocabulary.allowed(vocabulary.words)


def test_control_and_special_tokens_are_no_words(vocabulary, model):
    special = set(model.text_towers[0].tokenizer.all_special_ids)
    assert not special & set(vocabulary.ids.tolist())
    assert all(word.isprintable() and word for word in vocabulary.words)


def test_towers_of_different_vocabularies_are_refused():
    model = diffusion_model(random_pipeline("sdxl", tiny=True))
    first, second = model.text_towers
    second.tokenizer.add_tokens(["novel"])
    with pytest.raises(ValueError, match="vocabularies"):
        Vocabulary([first, second])


def test_the_summary_stands_where_the_prompt_ends(model, ids):
    conditioning = model.encode_tokens(ids)
    summary = model.summary(conditioning, ids.shape[1])
    pooled = conditioning.tensors.get("pooled")
    parts = [conditioning["embedding"][:, 6]] + ([] if pooled is None else [pooled])
    assert torch.equal(summary, torch.cat(parts, dim=1))
    # What comes before the end token changes it; causal attention lets nothing else do so.
    assert not torch.allclose(model.summary(model.encode_tokens(ids.flip(1)), 5), summary)
