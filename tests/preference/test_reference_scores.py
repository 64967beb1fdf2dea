"""Scores of the reference: one per pair, draw and caption, the same however they are computed."""

from __future__ import annotations

import pytest
import torch

from safetydpo_kedro.parameters import NoiseParameters
from safetydpo_kedro.preference.batches import Rows
from safetydpo_kedro.preference.inputs import make_inputs
from safetydpo_kedro.preference.loss import denoising_error
from safetydpo_kedro.preference.reference_scores import ReferenceScores, score_pairs

NOISE = NoiseParameters(seed=1, draws=3, caption_dropout=0.5)


@pytest.mark.parametrize("shared", [True, False])
def test_scores_are_the_models_errors_on_each_draw_and_caption(model, data, shared):
    noise = NOISE.model_copy(update={"shared": shared})
    scores = score_pairs(model, data.pairs, noise, batch_size=4)
    assert scores.errors.shape == (5, 3, 2, 2)
    rows = Rows(torch.tensor([4, 0]), torch.tensor([True, False]), torch.tensor([2, 1]))
    inputs = make_inputs(model, data.pairs, rows, noise, model.unconditional())
    prediction = model.predict(inputs.noisy, inputs.timesteps, inputs.captions)
    expected = denoising_error(prediction, inputs.target).view(2, 2).T
    torch.testing.assert_close(scores.rows(rows), expected.detach(), rtol=1e-4, atol=1e-6)


def test_scores_depend_neither_on_the_batch_nor_on_the_other_pairs(model, data):
    whole = score_pairs(model, data.pairs, NOISE, batch_size=30)
    some = torch.tensor([3, 1])
    alone = score_pairs(model, data.pairs.select(some), NOISE, batch_size=1)
    torch.testing.assert_close(whole.select(some).errors, alone.errors, rtol=1e-4, atol=1e-6)


def test_only_losers_have_other_scores_once_their_noise_is_their_own(model, data):
    shared, own = (
        score_pairs(model, data.pairs, NOISE.model_copy(update={"shared": choice}), 30).errors
        for choice in (True, False)
    )
    assert torch.equal(shared[..., 0], own[..., 0])
    assert (shared[..., 1] != own[..., 1]).all()


def test_a_dropped_caption_has_one_score_for_both_prompts(model, data):
    errors = score_pairs(model, data.pairs, NOISE, batch_size=8).errors
    same = (errors[:, :, 0] == errors[:, :, 1]).all(dim=-1)
    assert 0 < same.sum() < same.numel()


def test_draws_without_a_bound_leave_nothing_to_score(model, data):
    scores = score_pairs(model, data.pairs, NoiseParameters(draws=None), batch_size=8)
    assert scores.draws == 0 and len(scores.errors) == 5
    again = ReferenceScores.from_tensors(scores.to_tensors())
    assert again.errors.shape == (5, 0, 2, 2)
