import torch
from hypothesis import given
from hypothesis import strategies as st

from safetydpo_kedro.preference.batches import training_rows
from safetydpo_kedro.preference.noise import keyed_draws

SHAPE = (4, 2, 2)


def test_noise_depends_on_its_key_alone():
    together = keyed_draws(7, [3, 5, 9], [0, 1, 0], SHAPE, 1000)
    alone = keyed_draws(7, [5], [1], SHAPE, 1000)
    for all_rows, row in zip(together, alone, strict=True):
        torch.testing.assert_close(all_rows[1:2], row, rtol=0, atol=0)


def test_other_keys_give_other_noise():
    base = keyed_draws(7, [3], [0], SHAPE, 1000).noise
    for other in (keyed_draws(8, [3], [0], SHAPE, 1000), keyed_draws(7, [4], [0], SHAPE, 1000)):
        assert not torch.equal(base, other.noise)


def test_noise_is_standard_normal_and_timesteps_are_uniform():
    draws = keyed_draws(0, range(2000), [0] * 2000, SHAPE, 1000)
    assert abs(draws.noise.mean().item()) < 0.02
    assert abs(draws.noise.std().item() - 1) < 0.02
    assert abs(draws.timesteps.float().mean().item() - 499.5) < 30
    assert draws.timesteps.min() >= 0
    assert draws.timesteps.max() < 1000
    correlation = torch.corrcoef(torch.stack([draws.noise.flatten(), draws.posterior.flatten()]))
    assert abs(correlation[0, 1].item()) < 0.02


@given(
    pairs=st.integers(1, 9),
    batch_size=st.integers(1, 7),
    strategy=st.sampled_from(["unsafe_prompt", "safe_prompt", "both_prompts"]),
    bound=st.one_of(st.none(), st.integers(1, 3)),
)
def test_every_caption_of_every_pair_comes_once_per_epoch(pairs, batch_size, strategy, bound):
    captions = 2 if strategy == "both_prompts" else 1
    epoch = pairs * captions
    rows = [training_rows(s, batch_size, pairs, strategy, bound, 0) for s in range(2 * epoch)]
    seen = [(int(p), bool(u)) for r in rows for p, u in zip(r.pairs, r.unsafe, strict=True)]
    for start in range(0, 2 * epoch, epoch):
        assert len(set(seen[start : start + epoch])) == epoch
    draws = torch.cat([r.draws for r in rows])[: 2 * epoch]
    assert draws[0] == 0
    assert draws[-1] == (1 if bound is None else 1 % bound)
