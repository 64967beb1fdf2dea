"""What the denoiser is given, against a literal definition of noise for every single row."""

from __future__ import annotations

import hashlib

import pytest
import torch

from safetydpo_kedro.parameters import NoiseParameters
from safetydpo_kedro.preference.batches import Rows
from safetydpo_kedro.preference.inputs import make_inputs
from safetydpo_kedro.preference.noise import keyed_draws, loser_noise

ROWS = Rows(torch.tensor([4, 0, 4]), torch.tensor([True, False, True]), torch.tensor([2, 1, 0]))
SEED = 7


def generator(*parts):
    """The generator of a key: BLAKE2b of its text, 63 bits of it."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def literal(model, pairs, shared):
    """Noised winners, then losers, one row at a time."""
    noisy, targets = {"winner": [], "loser": []}, {"winner": [], "loser": []}
    shape = pairs.winners.mean.shape[1:]
    for pair, draw in zip(ROWS.pairs.tolist(), ROWS.draws.tolist(), strict=True):
        source = generator(SEED, int(pairs.ids[pair]), draw)
        posterior, epsilon = torch.randn(2, *shape, generator=source)
        t = torch.randint(model.train_timesteps, (1,), generator=source)
        own = generator(SEED, int(pairs.ids[pair]), draw, "loser")
        other = epsilon if shared else torch.randn(*shape, generator=own)
        for side, images, eps in (
            ("winner", pairs.winners, epsilon),
            ("loser", pairs.losers, other),
        ):
            x = (images.mean[pair] + images.std[pair] * posterior)[None]
            noisy[side].append(model.add_noise(x, eps[None], t))
            targets[side].append(model.target(x, eps[None], t))
    return [torch.cat(rows["winner"] + rows["loser"]) for rows in (noisy, targets)]


def inputs(model, data, **changes):
    noise = NoiseParameters(seed=SEED, caption_dropout=0.0, **changes)
    return make_inputs(model, data.pairs, ROWS, noise, model.unconditional())


@pytest.mark.parametrize("shared", [True, False])
def test_winners_and_losers_are_noised_as_their_keys_say(model, data, shared):
    got = inputs(model, data, shared=shared)
    noisy, target = literal(model, data.pairs, shared)
    torch.testing.assert_close(got.noisy, noisy, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.target, target, rtol=1e-6, atol=1e-6)


def test_noise_is_shared_unless_somebody_says_otherwise(model, data):
    """Bit for bit what it was before there was a choice; the winners whatever is chosen."""
    default, shared, own = (
        inputs(model, data, **changes) for changes in ({}, {"shared": True}, {"shared": False})
    )
    n = len(ROWS.pairs)
    # One noise for both, laid out as the code before the choice did.
    keys = (SEED, data.pairs.ids[ROWS.pairs], ROWS.draws)
    draws = keyed_draws(*keys, data.pairs.winners.mean.shape[1:], model.train_timesteps)
    sides = (data.pairs.winners, data.pairs.losers)
    x = torch.cat([images.sample(ROWS.pairs, draws.posterior) for images in sides])
    before = model.add_noise(x, torch.cat([draws.noise] * 2), torch.cat([draws.timesteps] * 2))
    assert torch.equal(default.noisy, before) and torch.equal(shared.noisy, before)
    assert torch.equal(own.noisy[:n], before[:n]) and torch.equal(own.timesteps, default.timesteps)
    assert all((own.noisy[n + i] != before[n + i]).any() for i in range(n))
    assert torch.equal(own.unsafe, default.unsafe)


def test_safe_captions_are_given_to_who_asks(model, data):
    noise = NoiseParameters(seed=SEED, caption_dropout=0.0)
    plain, asked = (
        make_inputs(model, data.pairs, ROWS, noise, model.unconditional(), with_safe=with_safe)
        for with_safe in (False, True)
    )
    assert plain.safe is None
    safe = data.pairs.safe.rows(ROWS.pairs.repeat(2))
    assert torch.equal(asked.safe["embedding"], safe["embedding"])
    assert torch.equal(asked.captions["embedding"], plain.captions["embedding"])


def test_losers_noise_is_standard_normal_and_tells_nothing_of_the_winners():
    shape, items = (4, 2, 2), range(2000)
    own = loser_noise(0, items, [0] * 2000, shape)
    winner = keyed_draws(0, items, [0] * 2000, shape, 1000)
    assert abs(own.mean().item()) < 0.02 and abs(own.std().item() - 1) < 0.02
    for other in (winner.noise, winner.posterior):
        assert abs(torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1]) < 0.02
    torch.testing.assert_close(loser_noise(0, [5], [0], shape)[0], own[5], rtol=0, atol=0)
    assert (loser_noise(0, [5], [1], shape)[0] != own[5]).any()
