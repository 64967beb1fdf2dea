"""Training of an expert: that it learns, repeats itself, goes on, stops and explains itself."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from safetydpo_kedro.checkpoints import ChangedIdentityError
from safetydpo_kedro.diffusion.lora import random_adapter
from safetydpo_kedro.diffusion.lora_files import save_adapter
from safetydpo_kedro.parameters import (
    CheckpointParameters,
    ExpertTrainingParameters,
    LoraParameters,
    NoiseParameters,
    PreservationParameters,
    SamplingParameters,
    ValidationParameters,
)
from safetydpo_kedro.preference.data import HeldOut, TrainingData
from safetydpo_kedro.preference.latents import LatentImages
from safetydpo_kedro.preference.loop import NonFiniteError
from safetydpo_kedro.preference.trainer import TrainingRun, train_expert

NOISE = NoiseParameters(seed=3, caption_dropout=0.2)
PARAMETERS = ExpertTrainingParameters(
    seed=3,
    lora=LoraParameters(rank=2, target_modules=["to_k", "to_v"]),
    beta=100.0,
    redirection_weight=1.0,
    supervised_weight=0.5,
    preservation=PreservationParameters(weight=1.0, rows=3),
    steps=6,
    batch_size=4,
    learning_rate=1e-2,
    schedule="cosine",
    warmup_steps=1,
    checkpoints=CheckpointParameters(every=2),
)
LOOKS = ValidationParameters(every=2, draws=2, images=1, sampling=SamplingParameters(steps=1))


def changed(**update):
    return PARAMETERS.model_copy(update=update)


def train(model, data, folder, parameters=PARAMETERS, noise=NOISE, on_step=None, **options):
    run = TrainingRun("expert", data, noise, parameters, folder, **options)
    return train_expert(model, run, on_step)


def held_out(data: TrainingData) -> TrainingData:
    """The same with one pair of five held out."""
    out = HeldOut(data.pairs.select(torch.tensor([4])), ["knife on a grey background"], [7])
    return replace(data, pairs=data.pairs.select(torch.arange(4)), held_out=out)


def same(a, b) -> bool:
    return all(
        torch.equal(layer.a, b.layers[name].a) and torch.equal(layer.b, b.layers[name].b)
        for name, layer in a.layers.items()
    )


class Cut(Exception):
    """The training is cut off."""


def cut_off_after(step):
    def on_step(number, metrics):
        if number == step:
            raise Cut

    return on_step


def test_training_learns_and_leaves_the_model_as_it_was(model, data, tmp_path):
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    # Two draws that come again and again can be learnt even by a model of random weights.
    longer = ExpertTrainingParameters(
        lora=LoraParameters(rank=4),
        beta=1000.0,
        steps=60,
        batch_size=5,
        learning_rate=1e-2,
        warmup_steps=0,
    )
    noise = NoiseParameters(caption_dropout=0.0, draws=2)
    trained = train(model, TrainingData(data.pairs), tmp_path / "run", longer, noise)
    after = model.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    history = trained.history
    assert history["loss"][0] == pytest.approx(math.log(2), abs=1e-7)
    assert history["preference_loss"].tail(8).mean() < math.log(2) - 0.05
    assert history["implicit_accuracy"].tail(8).mean() > 0.6
    assert any(layer.delta().abs().max() > 0 for layer in trained.adapter.layers.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(model, data, tmp_path):
    files = []
    for i, seed in enumerate([3, 3, 4]):
        trained = train(model, data, tmp_path / f"run{i}", changed(seed=seed))
        save_adapter(trained.adapter, tmp_path / f"{i}.safetensors")
        files.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "adamw_8bit"])
def test_a_run_that_is_cut_off_ends_like_one_that_is_not(model, data, tmp_path, optimizer):
    # Only tensors of 4096 numbers and more are kept in 8 bits.
    lora = LoraParameters(rank=256 if optimizer == "adamw_8bit" else 2)
    parameters = changed(optimizer=optimizer, lora=lora, validation=LOOKS)
    data, steps = held_out(data), []
    whole = train(model, data, tmp_path / "whole", parameters)
    with pytest.raises(Cut):
        train(model, data, tmp_path / "cut", parameters, on_step=cut_off_after(5))
    resumed = train(
        model, data, tmp_path / "cut", parameters, on_step=lambda step, _: steps.append(step)
    )
    assert steps == [5, 6]
    assert same(whole.adapter, resumed.adapter)
    columns = [c for c in whole.history if c != "samples_per_second"]
    np.testing.assert_array_equal(resumed.history[columns], whole.history[columns])
    assert list(resumed.images) == list(whole.images) == [0, 2, 4, 6]
    for step, images in whole.images.items():
        assert torch.equal(images, resumed.images[step])


def test_a_finished_training_is_not_done_again_until_its_checkpoint_goes(model, data, tmp_path):
    steps = []
    first = train(model, data, tmp_path / "run")
    again = train(model, data, tmp_path / "run", on_step=lambda step, _: steps.append(step))
    assert steps == [] and same(first.adapter, again.adapter)
    afresh = changed(checkpoints=CheckpointParameters(every=2, resume=False))
    train(model, data, tmp_path / "run", afresh, on_step=lambda step, _: steps.append(step))
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_changed_run_refuses_to_go_on_and_says_what_changed(model, data, tmp_path):
    folder = tmp_path / "run"
    train(model, data, folder)
    with pytest.raises(
        ChangedIdentityError, match=r"expert_training\.beta: 100\.0 → 7\.0"
    ) as error:
        train(model, data, folder, changed(beta=7.0))
    assert "expert.expert_training.checkpoints.resume to false" in str(error.value)
    assert f"delete {folder}" in str(error.value)
    with pytest.raises(ChangedIdentityError, match=r"noise\.draws: None → 2"):
        train(model, data, folder, noise=NOISE.model_copy(update={"draws": 2}))
    fewer = replace(data, pairs=data.pairs.select(torch.arange(4)))
    with pytest.raises(ChangedIdentityError, match="training pairs"):
        train(model, fewer, folder)
    weight = model.unet.conv_in.bias
    with torch.no_grad():
        weight.add_(1.0)
    try:
        with pytest.raises(ChangedIdentityError, match="base model"):
            train(model, data, folder)
    finally:
        with torch.no_grad():
            weight.sub_(1.0)


def test_how_often_it_is_saved_and_shared_does_not_make_another_run(model, data, tmp_path):
    with pytest.raises(Cut):
        train(model, data, tmp_path / "run", on_step=cut_off_after(3))
    steps = []
    other = changed(checkpoints=CheckpointParameters(every=1, keep=5))
    train(model, data, tmp_path / "run", other, on_step=lambda step, _: steps.append(step))
    assert steps == [3, 4, 5, 6]


def poisoned(data: TrainingData, pair: int) -> TrainingData:
    """The same with an infinite latent in one pair."""
    mean = data.pairs.winners.mean.clone()
    mean[pair] = torch.inf
    winners = LatentImages(mean, data.pairs.winners.std)
    return replace(data, pairs=replace(data.pairs, winners=winners))


def test_a_loss_that_is_not_finite_stops_with_step_pairs_and_last_checkpoint(model, data, tmp_path):
    # Batches of one pair: the order of the run's first epoch is that of an unpoisoned run.
    parameters = changed(batch_size=1, checkpoints=CheckpointParameters(every=1))
    bad = poisoned(data, 2)
    with pytest.raises(NonFiniteError, match=r"on the pairs \[2\]") as error:
        train(model, bad, tmp_path / "run", parameters)
    checkpoints = sorted((tmp_path / "run").glob("step-*"))
    step = len(list(checkpoints)) and int(checkpoints[-1].name.removeprefix("step-"))
    assert f"in step {step + 1} of 6" in str(error.value)
    assert (str(checkpoints[-1]) if checkpoints else "none") in str(error.value)


def test_steps_that_are_not_finite_may_be_skipped_and_are_counted(model, data, tmp_path):
    parameters = changed(batch_size=1, steps=10, nonfinite_steps=10)
    trained = train(model, poisoned(data, 2), tmp_path / "run", parameters)
    skipped = trained.history["skipped"].astype(bool)
    assert skipped.sum() == 2  # ten rows: every pair under both captions, once
    assert not np.isfinite(trained.history["loss"][skipped]).any()
    assert np.isfinite(trained.history["loss"][~skipped]).all()
    assert all(layer.b.isfinite().all() for layer in trained.adapter.layers.values())
    with pytest.raises(NonFiniteError, match="1 steps were skipped before, nonfinite_steps = 1"):
        train(
            model,
            poisoned(data, 2),
            tmp_path / "other",
            parameters.model_copy(update={"nonfinite_steps": 1}),
        )


def test_held_out_pairs_are_looked_at_and_change_nothing(model, data, tmp_path):
    some = held_out(data)
    looked = train(model, some, tmp_path / "a", changed(validation=LOOKS))
    blind = train(model, some, tmp_path / "b")
    assert same(looked.adapter, blind.adapter)
    seen = looked.history.dropna(subset=["held_out_accuracy"])
    assert seen["step"].tolist() == [2, 4, 6]
    assert seen["held_out_accuracy"].between(0, 1).all()
    assert {images.shape for images in looked.images.values()} == {(1, 32, 32, 3)}
    assert not torch.equal(looked.images[0], looked.images[6])
    assert blind.images == {}


def test_early_stopping_keeps_the_adapter_of_the_best_look(model, data, tmp_path):
    # A learning rate of nothing: no look is better than the first.
    still = changed(
        learning_rate=1e-20, steps=20, validation=LOOKS.model_copy(update={"patience": 2})
    )
    trained = train(model, held_out(data), tmp_path / "a", still)
    assert len(trained.history) == 6
    first = train(model, held_out(data), tmp_path / "b", changed(steps=2, learning_rate=1e-20))
    assert same(trained.adapter, first.adapter)
    again = train(model, held_out(data), tmp_path / "a", still)
    assert len(again.history) == 6


def test_a_shared_frozen_a_is_the_same_in_all_experts_and_only_b_is_trained(model, data, tmp_path):
    shared = changed(lora=LoraParameters(rank=2, frozen_a_seed=5))
    one = train(model, data, tmp_path / "a", shared).adapter
    other = train(model, data, tmp_path / "b", shared.model_copy(update={"seed": 8})).adapter
    for name, layer in one.layers.items():
        assert torch.equal(layer.a, other.layers[name].a)
    assert any(not torch.equal(layer.b, other.layers[n].b) for n, layer in one.layers.items())


def test_an_expert_on_top_of_another_adapter_starts_from_it_and_leaves_it_out(
    model, data, tmp_path
):
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in model.unet.named_modules()
        if name.endswith("attn2.to_k")
    }
    foundation = random_adapter(shapes, 2, torch.Generator().manual_seed(0))
    plain = train(model, data, tmp_path / "a", changed(steps=1))
    on_top = train(model, data, tmp_path / "b", changed(steps=1), foundation=foundation)
    history = on_top.history
    assert history["preference_loss"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert history["winner_error"][0] != pytest.approx(plain.history["winner_error"][0], rel=1e-4)
    with pytest.raises(ChangedIdentityError, match="foundation"):
        train(model, data, tmp_path / "b", changed(steps=1))


def test_gradient_checkpointing_changes_no_weight(model, data, tmp_path):
    plain = train(model, data, tmp_path / "a").adapter
    again = train(model, data, tmp_path / "b", changed(gradient_checkpointing=True)).adapter
    for name, layer in plain.layers.items():
        torch.testing.assert_close(layer.delta(), again.layers[name].delta())
    assert not model.unet.is_gradient_checkpointing


def test_the_learning_rate_may_grow_with_the_batch(model, data, tmp_path):
    update = {"scale_learning_rate": True, "schedule": "constant_with_warmup", "warmup_steps": 0}
    history = train(model, data, tmp_path / "run", changed(**update)).history
    rate = PARAMETERS.learning_rate * PARAMETERS.batch_size
    assert history["learning_rate"].tolist() == pytest.approx([rate] * PARAMETERS.steps)


def test_8_bit_adam_without_its_package_is_an_error_that_says_what_to_install(
    model, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match=r"pip install 'safetydpo_kedro\[gpu\]'"):
        train(model, data, tmp_path / "run", changed(optimizer="adamw_8bit"))


def test_no_pairs_and_a_missing_pool_are_clear_errors(data, tmp_path):
    nothing = replace(data, pairs=data.pairs.select(torch.tensor([], dtype=torch.int64)))
    with pytest.raises(ValueError, match="no training pairs"):
        TrainingRun("expert", nothing, NOISE, PARAMETERS, tmp_path)
    with pytest.raises(ValueError, match="'neutral' pool"):
        TrainingRun("expert", TrainingData(data.pairs), NOISE, PARAMETERS, tmp_path)


def test_parameters_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="belongs to loss_type 'sigmoid'"):
        ExpertTrainingParameters(loss_type="ipo", label_smoothing=0.1)
    with pytest.raises(ValueError, match="batch_size = 3 cannot be shared evenly"):
        ExpertTrainingParameters(batch_size=3, num_processes=2)


def test_the_loop_reports_every_step(model, data, tmp_path):
    seen = {}
    trained = train(model, data, tmp_path / "run", on_step=seen.__setitem__)
    assert list(seen) == trained.history["step"].tolist()
    assert [m["loss"] for m in seen.values()] == trained.history["loss"].tolist()
