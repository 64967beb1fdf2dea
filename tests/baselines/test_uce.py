"""UCE against least squares, and what it edits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.baselines.config import UceConfig
from safetydpo_kedro.baselines.uce import edit_uce, uce_update
from safetydpo_kedro.diffusion.weights import replaced

scales = st.fixed_dictionaries(
    {
        "erase_scale": st.floats(0.1, 10),
        "preserve_scale": st.floats(0, 10),
        "regularization": st.floats(0.01, 10),
    }
)


def problem(seed, edited, kept, width=5, out=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(out, width), (edited, width), (edited, out), (kept, width)]
    return [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]


problems = st.builds(problem, st.integers(0, 99), st.integers(1, 7), st.integers(0, 7))


@given(problems, scales)
def test_update_is_the_least_squares_solution(tensors, scale):
    """Stacked rows √e c → √e v*, √p c_j → √p W c_j and √λ I → √λ W, solved by lstsq."""
    old, c, v, kept = tensors
    names = ("erase_scale", "preserve_scale", "regularization")
    e, p, lam = (scale[name] ** 0.5 for name in names)
    identity = torch.eye(old.shape[1], dtype=torch.float64)
    left = torch.cat([e * c, p * kept, lam * identity])
    right = torch.cat([e * v, p * kept @ old.T, lam * old.T])
    expected = torch.linalg.lstsq(left, right).solution.T
    torch.testing.assert_close(uce_update(*tensors, **scale), expected, rtol=1e-7, atol=1e-7)


@given(problems, scales)
def test_the_objective_has_no_gradient_at_the_update(tensors, scale):
    old, c, v, kept = tensors
    weight = uce_update(*tensors, **scale).requires_grad_()
    loss = (
        scale["erase_scale"] * (c @ weight.T - v).square().sum()
        + scale["preserve_scale"] * (kept @ (weight - old).T).square().sum()
        + scale["regularization"] * (weight - old).square().sum()
    )
    (gradient,) = torch.autograd.grad(loss, weight)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-8)


def test_update_is_equation_7_as_it_is_printed():
    old, c, v, kept = problem(1, 4, 6)
    lam = 0.5 * torch.eye(5, dtype=torch.float64)
    values = v.T @ c + old @ kept.T @ kept + old @ lam
    expected = values @ torch.linalg.inv(c.T @ c + kept.T @ kept + lam)
    found = uce_update(old, c, v, kept, erase_scale=1, preserve_scale=1, regularization=0.5)
    torch.testing.assert_close(found, expected)


@given(problems, scales)
def test_targets_that_are_the_old_outputs_change_nothing(tensors, scale):
    old, c, _, kept = tensors
    assert torch.equal(uce_update(old, c, c @ old.T, kept, **scale), old)


def test_half_precision_is_solved_in_float64():
    old, c, v, kept = (t.bfloat16() for t in problem(2, 3, 4))
    scale = {"erase_scale": 1.0, "preserve_scale": 1.0, "regularization": 0.5}
    wide = uce_update(*(t.double() for t in (old, c, v, kept)), **scale)
    assert torch.equal(uce_update(old, c, v, kept, **scale), wide)


def keys(model, text):
    """What the first edited projection makes of each token of a text, ``[tokens, out]``."""
    layer = next(m for n, m in model.unet.named_modules() if n.endswith("attn2.to_k"))
    return layer(model.encode_prompts([text])["embedding"][0])


def test_keys_and_values_of_cross_attentions_are_edited(model):
    before = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    edited = edit_uce(model, ["gun"], ["spoon"], ["cat"], UceConfig())
    assert edited.keys() == {
        name for name in before if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    assert len(edited) > 2
    assert all(not torch.equal(weight, before[name]) for name, weight in edited.items())
    after = model.unet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def last_word(model, text):
    """Place of the token before the end of the text, found by the end's own id."""
    tokenizer = model.pipeline.tokenizer
    return tokenizer(text).input_ids.index(tokenizer.eos_token_id) - 1


@pytest.mark.parametrize("concept", ["gun", "raging face"])
@pytest.mark.parametrize("anchor", ["", "spoon"])
def test_the_last_word_is_read_as_that_of_the_anchor(model, concept, anchor):
    config = UceConfig(tokens="last", regularization=1e-9)
    with torch.no_grad():
        wanted = keys(model, anchor)[last_word(model, anchor)]
        with replaced(model.unet, edit_uce(model, [concept], [anchor], [], config)):
            found = keys(model, concept)[last_word(model, concept)]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("tokens", "concept", "anchor"),
    [
        ("from_last", "raging face on a blue background", "gun"),
        ("all", "raging face", "happy face"),
    ],
)
def test_several_tokens_are_read_as_those_of_the_anchor(model, tokens, concept, anchor):
    """There are more tokens than dimensions, so the least-squares solution is not exact."""
    config = UceConfig(tokens=tokens, regularization=1e-9)
    own, other = last_word(model, concept), last_word(model, anchor)
    assert own > other or tokens == "all"
    if tokens == "all":
        own = other = 1
    count = model.pipeline.tokenizer.model_max_length - max(own, other)
    with torch.no_grad():
        old, wanted = keys(model, concept), keys(model, anchor)[other : other + count]
        with replaced(model.unet, edit_uce(model, [concept], [anchor], [], config)):
            found = keys(model, concept)
    before, after = ((k[own : own + count] - wanted).square().mean().item() for k in (old, found))
    assert after < 0.3 * before


def test_preserved_texts_are_read_as_before(model):
    with torch.no_grad():
        old, place = keys(model, "cat"), last_word(model, "cat")
        moved = []
        for preserved in ([], ["cat"]):
            edited = edit_uce(model, ["gun"], ["spoon"], preserved, UceConfig(preserve_scale=100))
            with replaced(model.unet, edited):
                moved.append((keys(model, "cat") - old)[place].abs().max().item())
    assert moved[1] < 0.1 * moved[0]


def test_regularization_keeps_the_old_weights(model):
    before = model.unet.state_dict()
    edited = edit_uce(model, ["gun"], ["spoon"], [], UceConfig(regularization=1e9))
    for name, weight in edited.items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-6)


def test_one_anchor_serves_all_concepts(model):
    one = edit_uce(model, ["gun", "knife"], [""], [], UceConfig())
    each = edit_uce(model, ["gun", "knife"], ["", ""], [], UceConfig())
    assert all(torch.equal(one[name], each[name]) for name in each)


@pytest.mark.parametrize(("concepts", "anchors"), [([], [""]), (["gun"], ["a", "b"])])
def test_concepts_and_anchors_that_do_not_match_are_refused(model, concepts, anchors):
    with pytest.raises(ValueError, match=f"{len(concepts)} concepts, {len(anchors)} anchors"):
        edit_uce(model, concepts, anchors, [], UceConfig())
