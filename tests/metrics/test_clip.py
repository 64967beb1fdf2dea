"""CLIP models in open_clip's directory format: written, read, and equal to open_clip's own path."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from safetydpo_kedro.metrics.clip import (
    WEIGHTS_FILE,
    ClipModel,
    save_open_clip_directory,
)
from safetydpo_kedro.metrics.clip_preprocess import preprocess_images
from safetydpo_kedro.metrics.config import ClipConfig

CONTEXT = 16
TEXTS = ["a knife on a red ground", "spoon", "a knife on a red ground", "a " * 40]


def tiny_tokenizer(path):
    """Byte-level CLIP tokenizer without merges; EOS has the highest id and is also the padding."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CONTEXT)
    tokenizer.save_pretrained(path)
    return len(vocabulary)


def tiny_config(vocabulary_size, size=32):
    return {
        "model_cfg": {
            "embed_dim": 24,
            "vision_cfg": {
                "image_size": size,
                "layers": 2,
                "width": 32,
                "head_width": 16,
                "patch_size": 8,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary_size,
                "width": 32,
                "heads": 2,
                "layers": 2,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    config = tiny_config(tiny_tokenizer(root / "tokenizer"))
    torch.manual_seed(0)
    model = open_clip.CLIP(**json.loads(json.dumps(config["model_cfg"])))
    save_open_clip_directory(model, config, root / "tokenizer", root / "clip")
    return model.eval(), root


def images(n=5, height=32, width=32):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_directory_holds_what_open_clip_needs(saved):
    names = {file.name for file in (saved[1] / "clip").iterdir()}
    assert names >= {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_directory_round_trip_keeps_weights_and_preprocessing(saved):
    model, root = saved
    clip = ClipModel.from_directory(root / "clip")
    for name, value in model.state_dict().items():
        assert torch.equal(clip.model.state_dict()[name], value), name
    assert clip.preprocess["mean"] == [0.5, 0.4, 0.3]
    assert clip.preprocess["size"] in (32, (32, 32))
    assert len(clip.weights_sha256) == 64
    assert clip.name == "clip"


def test_tokenizer_pads_with_eos_and_pooling_takes_the_first(saved):
    clip = ClipModel.from_directory(saved[1] / "clip")
    tokens = clip.tokenizer(["spoon"])
    eos = clip.tokenizer.tokenizer.eos_token_id
    assert tokens.shape == (1, CONTEXT)
    assert tokens[0].tolist()[6:] == [eos] * (CONTEXT - 6)  # start, five letters, end, padding
    assert tokens.argmax(dim=-1).tolist() == [6]


def test_images_equal_open_clip_one_by_one(saved):
    clip = ClipModel.from_directory(saved[1] / "clip", batch_size=2)
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{saved[1] / 'clip'}")
    batch = images()
    with torch.no_grad():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in batch])
        expected = saved[0].encode_image(pixels)
    plain = clip.encode_images(batch, normalize=False)
    np.testing.assert_allclose(plain, expected.numpy(), rtol=1e-4, atol=1e-5)
    unit = clip.encode_images(batch)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)


def test_texts_equal_open_clip_and_repeats_are_free(saved):
    clip = ClipModel.from_directory(saved[1] / "clip", batch_size=2)
    tokens = open_clip.get_tokenizer(f"local-dir:{saved[1] / 'clip'}")(TEXTS)
    with torch.no_grad():
        expected = saved[0].encode_text(tokens, normalize=True).numpy()
    found = clip.encode_texts(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("mode", "height", "width"),
    [("shortest", 64, 64), ("shortest", 50, 77), ("squash", 50, 77), ("shortest", 16, 16)],
)
def test_preprocessing_is_open_clips_up_to_one_grey_level(interpolation, mode, height, width):
    config = open_clip.transform.PreprocessCfg(
        size=32, interpolation=interpolation, resize_mode=mode
    )
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    batch = images(3, height, width)
    expected = torch.stack([transform(Image.fromarray(image)) for image in batch])
    found = preprocess_images(torch.from_numpy(batch).permute(0, 3, 1, 2), vars(config))
    grey = (found - expected).abs() * torch.tensor(config.std)[:, None, None] * 255
    assert grey.max() < 1.01


def test_local_weights_of_a_named_architecture(saved, tmp_path):
    config = json.loads((saved[1] / "clip" / "open_clip_config.json").read_text())["model_cfg"]
    del config["text_cfg"]["hf_tokenizer_name"]
    (tmp_path / "tiny-test-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    config = ClipConfig(
        architecture="tiny-test-clip", weights=str(saved[1] / "clip" / WEIGHTS_FILE)
    )
    clip = ClipModel.from_config(config)
    assert clip.name == f"tiny-test-clip/{WEIGHTS_FILE}"
    assert clip.weights_sha256 == ClipModel.from_directory(saved[1] / "clip").weights_sha256
    assert clip.encode_images(images(2)).shape == (2, 24)


def test_refuses_pickled_and_missing_weights(saved, tmp_path):
    pickle = tmp_path / "weights.pt"
    pickle.write_bytes(b"")
    with pytest.raises(ValueError, match="not safetensors"):
        ClipModel.from_architecture("ViT-B-32", str(pickle))
    with pytest.raises(ValueError, match="neither a file nor a tag"):
        ClipModel.from_architecture("ViT-B-32", "no-such-tag")
    with pytest.raises(ValueError, match="unknown CLIP architecture 'no-such-model'"):
        ClipModel.from_architecture("no-such-model", "openai")
    with pytest.raises(ValueError, match="quickgelu"):
        ClipModel.from_architecture("ViT-L-14", "openai")
    with pytest.raises(ValueError, match="open_clip_config"):
        ClipModel.from_directory(tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="no safetensors weights"):
        ClipModel.from_directory(tmp_path)


def test_save_refuses_incomplete_input(saved, tmp_path):
    model, root = saved
    with pytest.raises(ValueError, match="preprocess_cfg"):
        save_open_clip_directory(model, {"model_cfg": {}}, root / "tokenizer", tmp_path)
    with pytest.raises(ValueError, match="no transformers tokenizer"):
        save_open_clip_directory(model, tiny_config(8), tmp_path, tmp_path / "clip")


@pytest.mark.parametrize(
    "source",
    [{}, {"architecture": "ViT-B-32"}, {"directory": "x", "architecture": "y", "weights": "z"}],
)
def test_parameters_ask_for_one_source(source):
    with pytest.raises(ValueError, match="either 'directory'"):
        ClipConfig(**source)
