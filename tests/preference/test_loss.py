import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from safetydpo_kedro.preference.loss import PairErrors, denoising_error, dpo_loss, min_snr_weights


def random_errors(seed=0, pairs=16):
    generator = torch.Generator().manual_seed(seed)
    return PairErrors(*torch.rand(4, pairs, generator=generator, dtype=torch.float64))


def closed_form(errors, beta):
    """−β/2·[(L_w−L_l) − (L_w−L_l)_ref] and −log σ of it, in float64 NumPy, by log1p."""
    winner, loser, reference_winner, reference_loser = (error.numpy() for error in errors)
    inside = -beta / 2 * ((winner - loser) - (reference_winner - reference_loser))
    return np.logaddexp(0.0, -inside), inside


@pytest.mark.parametrize("beta", [1.0, 50.0, 5000.0])
def test_loss_equals_the_closed_form_in_float64(beta):
    errors = random_errors()
    losses, inside = dpo_loss(errors, beta)
    expected_losses, expected_inside = closed_form(errors, beta)
    np.testing.assert_allclose(losses.numpy(), expected_losses, rtol=1e-12)
    np.testing.assert_allclose(inside.numpy(), expected_inside, rtol=1e-12)


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo"])
def test_a_policy_that_equals_its_reference_has_a_known_loss(loss_type):
    winner, loser = torch.rand(2, 8, generator=torch.Generator().manual_seed(1))
    losses, inside = dpo_loss(PairErrors(winner, loser, winner, loser), 5000.0, loss_type)
    expected = {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 0.25}[loss_type]
    assert losses.tolist() == pytest.approx([expected] * 8)
    assert not inside.any()


def test_ipo_is_the_papers_squared_distance_times_beta_squared():
    """Azar et al. 2023, eq. 17: (h − 1/(2β))² with h the difference of log ratios."""
    errors, beta = random_errors(), 40.0
    h = closed_form(errors, beta)[1] / beta
    losses = dpo_loss(errors, beta, "ipo").losses
    np.testing.assert_allclose(losses.numpy(), beta**2 * (h - 1 / (2 * beta)) ** 2, rtol=1e-9)


def test_smoothed_labels_are_the_expected_loss_under_flipped_pairs():
    """Conservative DPO: with probability ε winner and loser are taken for each other."""
    errors, beta, epsilon = random_errors(), 3.0, 0.1
    turned = PairErrors(errors[1], errors[0], errors[3], errors[2])
    right, flipped = closed_form(errors, beta)[0], closed_form(turned, beta)[0]
    losses = dpo_loss(errors, beta, label_smoothing=epsilon).losses
    np.testing.assert_allclose(losses.numpy(), (1 - epsilon) * right + epsilon * flipped, rtol=1e-9)


def test_hinge_is_flat_beyond_its_margin():
    errors = PairErrors(*(torch.tensor([e], requires_grad=True) for e in (0.0, 1.0, 0.5, 0.5)))
    losses, inside = dpo_loss(errors, 10.0, "hinge")
    assert inside.item() == 5.0
    assert losses.item() == 0.0


def test_denoising_error_is_the_mean_over_channels_and_positions_in_float32():
    prediction = torch.full((2, 3, 4, 4), 3.0, dtype=torch.bfloat16)
    error = denoising_error(prediction, torch.ones(2, 3, 4, 4, dtype=torch.bfloat16))
    assert error.dtype == torch.float32
    torch.testing.assert_close(error, torch.full((2,), 4.0))


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo"])
def test_gradient_pushes_the_winner_down_and_the_loser_up(loss_type):
    errors = torch.full((4, 1), 0.5, requires_grad=True)
    dpo_loss(PairErrors(*errors), 10.0, loss_type).losses.sum().backward()
    winner, loser = errors.grad[0].item(), errors.grad[1].item()
    assert winner > 0 > loser


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_follow_their_definition(prediction):
    schedule = DDPMScheduler(1000, beta_schedule="scaled_linear", prediction_type=prediction)
    times = torch.tensor([0, 10, 400, 999])
    alphas = schedule.alphas_cumprod[times].double().numpy()
    snr = alphas / (1 - alphas)
    expected = np.minimum(snr, 5.0) / (snr if prediction == "epsilon" else snr + 1)
    weights = min_snr_weights(schedule, times, 5.0)
    assert weights.dtype == torch.float32
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-4)
