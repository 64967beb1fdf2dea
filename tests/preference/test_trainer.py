import math
import sys

import numpy as np
import pytest
import torch

from safetydpo_kedro.diffusion.adapters import trainable_adapter
from safetydpo_kedro.diffusion.lora import save_adapter
from safetydpo_kedro.diffusion.registry import diffusion_model
from safetydpo_kedro.parameters import (
    ExpertTrainingParameters,
    LoraParameters,
    PreservationParameters,
)
from safetydpo_kedro.preference import trainer as trainer_module
from safetydpo_kedro.preference.batches import training_rows
from safetydpo_kedro.preference.latents import encode_pairs, encode_preserved
from safetydpo_kedro.preference.trainer import ExpertTrainer, train_expert

from ..worlds import tiny_pipeline

PARAMETERS = ExpertTrainingParameters(
    seed=3,
    lora=LoraParameters(rank=2, target_modules=["to_k", "to_v"]),
    beta=100.0,
    redirection_weight=1.0,
    supervised_weight=0.5,
    preservation=PreservationParameters(weight=1.0, rows=3),
    caption_dropout=0.2,
    steps=6,
    batch_size=4,
    learning_rate=1e-2,
    schedule="cosine",
    warmup_steps=1,
    checkpoint_every=2,
)
REFERENCE_RECIPE = ExpertTrainingParameters(
    steps=1, batch_size=4, lora=LoraParameters(rank=2), caption_dropout=0.2
)


@pytest.fixture(scope="module")
def model():
    return diffusion_model(tiny_pipeline())


@pytest.fixture(scope="module")
def data(model):
    rng = np.random.default_rng(0)
    x_s, x_u, x_n = rng.integers(0, 256, (3, 5, 32, 32, 3), dtype=np.uint8)
    colours = ["red", "blue", "green", "pink", "grey"]
    unsafe, safe, neutral = (
        [f"{name} on a {c} background" for c in colours] for name in ("knife", "spoon", "dog")
    )
    pairs = encode_pairs(model, x_s, x_u, unsafe, safe, range(5), batch_size=2)
    pool = encode_preserved(model, x_n, neutral, batch_size=2)
    return pairs, {"neutral": pool, "safe": pool}


def run(model, data, tmp_path, parameters=PARAMETERS, name="expert"):
    return train_expert(model, *data, parameters, tmp_path / "state.safetensors", name)


def test_step_0_loss_is_ln_2(model, data, tmp_path):
    _, history = run(model, data, tmp_path, REFERENCE_RECIPE)
    assert history["loss"][0] == pytest.approx(math.log(2), abs=1e-7)


def test_gradient_reaches_every_lora_weight_and_nothing_else(model, data):
    empty = model.unconditional()
    with trainable_adapter(model.unet, PARAMETERS.lora, seed=0) as weights:
        with torch.no_grad():  # B = 0 would hide A's gradient
            for weight in weights:
                weight.add_(0.02)
        trainer = ExpertTrainer(model, data[0], empty, data[1], PARAMETERS)
        rows = training_rows(0, 4, 5, "both_prompts", None, 0)
        trainer.loss(trainer.inputs(rows, 0, 0))[0].backward()
        parts = (model.unet, model.pipeline.vae, model.pipeline.text_encoder)
        with_gradient = {id(p) for part in parts for p in part.parameters() if p.grad is not None}
        assert with_gradient == {id(weight) for weight in weights}
        assert all(weight.grad.abs().max() > 0 for weight in weights)


def test_training_learns_and_leaves_the_reference_as_it_was(model, data, tmp_path):
    before = {k: v.clone() for k, v in model.unet.state_dict().items()}
    # Two draws that come again and again can be learnt even by a model of random weights.
    longer = ExpertTrainingParameters(
        lora=LoraParameters(rank=4),
        beta=1000.0,
        caption_dropout=0.0,
        draws=2,
        steps=60,
        batch_size=5,
        learning_rate=1e-2,
        warmup_steps=0,
    )
    adapter, history = run(model, data, tmp_path, longer)
    after = model.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert history["preference_loss"].tail(8).mean() < math.log(2) - 0.05
    assert history["implicit_accuracy"].tail(8).mean() > 0.6
    assert any(layer.delta().abs().max() > 0 for layer in adapter.layers.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(model, data, tmp_path):
    files = []
    for i, seed in enumerate([3, 3, 4]):
        parameters = PARAMETERS.model_copy(update={"seed": seed})
        adapter, _ = run(model, data, tmp_path, parameters)
        save_adapter(adapter, tmp_path / f"{i}.safetensors")
        files.append((tmp_path / f"{i}.safetensors").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "adamw_8bit"])
def test_a_run_that_is_cut_off_ends_like_one_that_is_not(
    model, data, tmp_path, monkeypatch, optimizer
):
    # Only tensors of 4096 numbers and more are kept in 8 bits.
    lora = LoraParameters(rank=256 if optimizer == "adamw_8bit" else 2)
    parameters = PARAMETERS.model_copy(update={"optimizer": optimizer, "lora": lora})
    whole, whole_history = run(model, data, tmp_path, parameters)
    real_step, steps = trainer_module._step, []

    def interrupted(trainer, step, *rest):
        if step == 5:
            raise KeyboardInterrupt
        return real_step(trainer, step, *rest)

    def counted(trainer, step, *rest):
        steps.append(step)
        return real_step(trainer, step, *rest)

    monkeypatch.setattr(trainer_module, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, data, tmp_path, parameters)
    monkeypatch.setattr(trainer_module, "_step", counted)
    resumed, history = run(model, data, tmp_path, parameters)
    assert steps == [4, 5]
    for name, layer in whole.layers.items():
        assert torch.equal(layer.a, resumed.layers[name].a)
        assert torch.equal(layer.b, resumed.layers[name].b)
    columns = [c for c in history if c != "samples_per_second"]
    np.testing.assert_array_equal(history[columns], whole_history[columns])


def test_micro_batches_give_the_same_gradient(model, data):
    """Without preserved rows, whose choice belongs to the micro-batch."""
    update = {"preservation": PreservationParameters(weight=0.0), "supervised_weight": 0.0}
    parameters = PARAMETERS.model_copy(update=update)
    empty = model.unconditional()
    gradients = []
    for size in (4, 2):
        with trainable_adapter(model.unet, parameters.lora, seed=0) as weights:
            with torch.no_grad():
                for weight in weights:
                    weight.add_(0.02)
            trainer = ExpertTrainer(model, data[0], empty, {}, parameters)
            rows = training_rows(0, 4, 5, "both_prompts", None, 0)
            for start in range(0, 4, size):
                part = type(rows)(*(column[start : start + size] for column in rows))
                (trainer.loss(trainer.inputs(part, 0, 0))[0] * size / 4).backward()
            gradients.append(torch.cat([w.grad.flatten() for w in weights]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_gradient_checkpointing_changes_no_weight(model, data, tmp_path):
    plain, _ = run(model, data, tmp_path)
    thrifty = PARAMETERS.model_copy(update={"gradient_checkpointing": True})
    again, _ = run(model, data, tmp_path, thrifty)
    for name, layer in plain.layers.items():
        torch.testing.assert_close(layer.delta(), again.layers[name].delta())
    assert not model.unet.is_gradient_checkpointing


def test_the_learning_rate_may_grow_with_the_batch(model, data, tmp_path):
    update = {"scale_learning_rate": True, "schedule": "constant_with_warmup", "warmup_steps": 0}
    _, history = run(model, data, tmp_path, PARAMETERS.model_copy(update=update))
    rate = PARAMETERS.learning_rate * PARAMETERS.batch_size
    assert history["learning_rate"].tolist() == pytest.approx([rate] * PARAMETERS.steps)


def test_8_bit_adam_without_its_package_is_an_error_that_says_what_to_install(
    model, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    parameters = PARAMETERS.model_copy(update={"optimizer": "adamw_8bit"})
    with pytest.raises(ValueError, match=r"pip install 'safetydpo_kedro\[gpu\]'"):
        run(model, data, tmp_path, parameters)


def test_no_pairs_and_a_missing_pool_are_clear_errors(model, data, tmp_path):
    pairs, _ = data
    with pytest.raises(ValueError, match="no training pairs"):
        run(model, (pairs.select(torch.tensor([], dtype=torch.int64)), {}), tmp_path)
    with pytest.raises(ValueError, match="'neutral' pool"):
        run(model, (pairs, {}), tmp_path)
