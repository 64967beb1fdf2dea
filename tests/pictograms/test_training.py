import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from safetydpo_kedro.checkpoints import ChangedIdentityError
from safetydpo_kedro.pictograms.autoencoder import whiten
from safetydpo_kedro.pictograms.captions import all_captions
from safetydpo_kedro.pictograms.classifier import (
    WorldClassifier,
    load_classifier,
    train_classifier,
)
from safetydpo_kedro.pictograms.clip import open_clip_config, text_encoder, tokenize
from safetydpo_kedro.pictograms.parameters import (
    ClassifierParameters,
    ClipParameters,
    OptimizationParameters,
)
from safetydpo_kedro.pictograms.tokenizer import END, train_tokenizer
from safetydpo_kedro.pictograms.training import cosine_factor, step_generator, train
from safetydpo_kedro.pictograms.world import draw_random, to_model_range

from ..worlds import tiny_pipeline


def optimization(**changes):
    values = {"steps": 8, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 2}
    return OptimizationParameters(**(values | {"checkpoint_every": 3} | changes))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(all_captions(), vocabulary_size=900, max_length=16)


def test_the_end_token_has_the_highest_id_and_pads(tokenizer):
    ids = tokenize(tokenizer, ["a blue picture of dog", "knife on a red background"])
    end = tokenizer.convert_tokens_to_ids(END)
    assert ids.shape == (2, 16)
    assert ids.max() == end == len(tokenizer) - 1
    assert (ids[:, -1] == end).all()


def test_training_again_gives_the_same_tokenizer(tokenizer):
    again = train_tokenizer(all_captions(), vocabulary_size=900, max_length=16)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(all_captions()).input_ids == tokenizer(all_captions()).input_ids


def test_captions_fit_and_survive_decoding(tokenizer):
    captions = all_captions()
    assert max(len(ids) for ids in tokenizer(captions).input_ids) <= 16
    assert tokenizer.decode(tokenizer(captions[5]).input_ids, True) == captions[5]


def test_the_transformers_text_tower_equals_open_clips(tokenizer):
    parameters = ClipParameters(
        embed_dim=8,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
        text_cfg={"width": 16, "layers": 2, "heads": 2},
        optimization=optimization(),
    )
    torch.manual_seed(0)
    clip = open_clip.CLIP(**open_clip_config(parameters, tokenizer)["model_cfg"]).eval()
    ids = tokenize(tokenizer, ["dog on a red background", "a blue picture of spoon"])
    with torch.no_grad():
        states = text_encoder(clip, tokenizer)(ids).last_hidden_state
        pooled = states[torch.arange(2), ids.argmax(dim=1)] @ clip.text_projection
        torch.testing.assert_close(pooled, clip.encode_text(ids), rtol=1e-4, atol=1e-5)


def test_whitening_keeps_reconstructions_and_whitens_latents():
    vae = tiny_pipeline().vae.requires_grad_(False)
    images = to_model_range(draw_random(64, step_generator(0, -1))[0])
    before = vae.decode(vae.encode(images).latent_dist.mean).sample
    spread = (
        vae.encode(images).latent_dist.std
        / vae.encode(images).latent_dist.mean.std((0, 2, 3))[:, None, None]
    )
    whiten(vae, 64, seed=0)
    posterior = vae.encode(images).latent_dist
    torch.testing.assert_close(vae.decode(posterior.mean).sample, before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(posterior.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(posterior.mean.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(posterior.std, spread, rtol=1e-3, atol=1e-5)


class Stop(Exception):
    pass


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Conv2d(4, 2, 3))


def run(model, checkpoints, stop=None, identity="the same"):
    """Train, stopped in the middle of the step ``stop`` if given; how many steps were begun."""
    calls = []

    def loss(generator):
        calls.append(1)
        if len(calls) == stop:
            raise Stop
        return model(torch.randn(2, 3, 8, 8, generator=generator)).square().mean()

    train("test", {"model": model}, loss, optimization(), checkpoints, {"data": identity})
    return len(calls)


def assert_same_weights(left, right):
    for key, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[key])


def test_training_resumes_bit_for_bit(tmp_path):
    whole, cut, resumed = (small_model() for _ in range(3))
    run(whole, tmp_path / "a")
    with pytest.raises(Stop):
        run(cut, tmp_path / "b", stop=5)
    assert run(resumed, tmp_path / "b") == 5  # steps 3…7
    assert_same_weights(whole, resumed)


def test_a_finished_training_is_not_done_again(tmp_path):
    first, second = small_model(), small_model()
    assert run(first, tmp_path / "run") == 8
    assert run(second, tmp_path / "run") == 0
    assert_same_weights(first, second)


def test_checkpoints_of_another_training_are_refused(tmp_path):
    with pytest.raises(Stop):
        run(small_model(), tmp_path / "run", stop=5)
    with pytest.raises(
        ChangedIdentityError, match=f"data: the same → another.*{tmp_path / 'run'}$"
    ):
        run(small_model(), tmp_path / "run", identity="another")


def test_learning_rate_warms_up_and_falls_to_zero():
    factors = [cosine_factor(step, 10, 2) for step in range(11)]
    np.testing.assert_allclose(factors[:3], [0.5, 1.0, 1.0])
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert factors[10] == pytest.approx(0)


def test_a_classifier_can_be_rebuilt_from_its_weights_and_learns_backgrounds(tmp_path):
    parameters = ClassifierParameters(
        channels=[8, 12, 16], junk_share=0.1, optimization=optimization(steps=60, batch_size=32)
    )
    classifier = train_classifier(parameters, tmp_path / "checkpoints").eval()
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    rebuilt = load_classifier(tmp_path / "weights.safetensors")
    images, _, backgrounds = draw_random(64, torch.Generator().manual_seed(9))
    x = to_model_range(images)
    torch.testing.assert_close(classifier(x)[1], rebuilt(x)[1])
    assert (rebuilt(x)[1].argmax(1) == backgrounds).float().mean() > 0.5
    assert isinstance(rebuilt, WorldClassifier)
