import math

import numpy as np
import pytest
import torch

from safetydpo_kedro.preference.loss import denoising_error, dpo_loss


def closed_form(winner, loser, reference_winner, reference_loser, beta):
    """−log σ(−β/2·[(L_w−L_l) − (L_w−L_l)_ref]) in float64 NumPy, by log1p."""
    policy = np.asarray(winner, np.float64) - np.asarray(loser, np.float64)
    reference = np.asarray(reference_winner, np.float64) - np.asarray(reference_loser, np.float64)
    inside = -beta / 2 * (policy - reference)
    return np.mean(np.logaddexp(0.0, -inside)), inside


@pytest.mark.parametrize("beta", [1.0, 50.0, 5000.0])
def test_loss_equals_the_closed_form_in_float64(beta):
    errors = torch.rand(4, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss, inside = dpo_loss(*errors, beta=beta)
    expected_loss, expected_inside = closed_form(*errors.numpy(), beta)
    assert loss.item() == pytest.approx(expected_loss, rel=1e-12)
    np.testing.assert_allclose(inside.numpy(), expected_inside, rtol=1e-12)


def test_a_policy_that_equals_its_reference_has_loss_ln_2():
    winner, loser = torch.rand(2, 8, generator=torch.Generator().manual_seed(1))
    assert dpo_loss(winner, loser, winner, loser, beta=5000.0).loss.item() == pytest.approx(
        math.log(2)
    )


def test_denoising_error_is_the_mean_over_channels_and_positions_in_float32():
    prediction = torch.full((2, 3, 4, 4), 3.0, dtype=torch.bfloat16)
    error = denoising_error(prediction, torch.ones(2, 3, 4, 4, dtype=torch.bfloat16))
    assert error.dtype == torch.float32
    torch.testing.assert_close(error, torch.full((2,), 4.0))


def test_gradient_pushes_the_winner_down_and_the_loser_up():
    errors = torch.full((4, 1), 0.5, requires_grad=True)
    dpo_loss(*errors, beta=10.0).loss.backward()
    winner, loser = errors.grad[0].item(), errors.grad[1].item()
    assert winner > 0 > loser
