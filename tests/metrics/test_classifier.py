"""A third judge: tiny random classifiers, against plain transformers one image at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BertConfig,
    BertModel,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from safetydpo_kedro.artifacts import file_digest
from safetydpo_kedro.metrics.classifier import ImageClassifier

LABELS = {0: "safe", 1: "gore", 2: "nude"}


def vit(**options) -> ViTConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    defaults = {"num_hidden_layers": 2, "image_size": 32, "patch_size": 8, "id2label": LABELS}
    # Large enough weights to tell images apart.
    return ViTConfig(**sizes, **(defaults | options), initializer_range=0.5)


def save_vit(path, **options):
    torch.manual_seed(0)
    ViTForImageClassification(vit(**options)).save_pretrained(path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def save_resnet(path):
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    config = ResNetConfig(**sizes, layer_type="basic", id2label=LABELS)
    ResNetForImageClassification(config).save_pretrained(path)
    ConvNextImageProcessor(size={"shortest_edge": 40}, crop_pct=0.8).save_pretrained(path)
    return path


def save_multi_label(path):
    return save_vit(path, problem_type="multi_label_classification")


def one_at_a_time(path, images) -> np.ndarray:
    """What the documentation of transformers does with one image."""
    processor = AutoImageProcessor.from_pretrained(path)
    model = AutoModelForImageClassification.from_pretrained(path).eval()
    logits = []
    with torch.no_grad():
        for image in images:
            inputs = processor(images=Image.fromarray(image), return_tensors="pt")
            logits.append(model(**inputs).logits[0].double().numpy())
    return np.array(logits)


@pytest.fixture(scope="module")
def images():
    coarse = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("save", [save_vit, save_resnet, save_multi_label])
def test_probabilities_equal_those_of_single_images(tmp_path, images, save):
    path = save(tmp_path / "judge")
    judge = ImageClassifier.from_directory(path, batch_size=3)
    logits = one_at_a_time(path, images)
    if save is save_multi_label:
        expected = 1 / (1 + np.exp(-logits))
    else:
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = judge.classify(images)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-7)
    assert probabilities.std(axis=0).max() > 1e-3  # the images are told apart
    assert judge.multi_label == (save is save_multi_label)


def test_names_labels_and_hash(tmp_path):
    path = save_vit(tmp_path / "judge")
    judge = ImageClassifier.from_directory(path, batch_size=3)
    assert judge.labels == ("safe", "gore", "nude")
    assert judge.name == "vit/judge"
    assert judge.weights_sha256 == file_digest(path / "model.safetensors")
    assert judge.device == torch.device("cpu") and judge.batch_size == 3


def test_weights_in_parts_judge_alike_and_every_part_is_hashed(tmp_path, images):
    whole = ImageClassifier.from_directory(save_vit(tmp_path / "whole"))
    path = save_vit(tmp_path / "parts")
    ViTForImageClassification.from_pretrained(path).save_pretrained(path, max_shard_size="8KB")
    (path / "model.safetensors").unlink(missing_ok=True)
    parts = sorted(path.glob("model-*.safetensors"))
    assert len(parts) > 1
    judge = ImageClassifier.from_directory(path)
    np.testing.assert_array_equal(judge.classify(images), whole.classify(images))
    content = parts[-1].read_bytes()
    parts[-1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert ImageClassifier.from_directory(path).weights_sha256 != judge.weights_sha256


def test_half_precision_weights_are_computed_in_float32(tmp_path, images):
    path = save_vit(tmp_path / "judge")
    ViTForImageClassification.from_pretrained(path).half().save_pretrained(path)
    judge = ImageClassifier.from_directory(path)
    model = AutoModelForImageClassification.from_pretrained(path, dtype=torch.float32).eval()
    processor = AutoImageProcessor.from_pretrained(path)
    inputs = processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.double().softmax(dim=-1).numpy()
    np.testing.assert_allclose(judge.classify(images), expected, rtol=1e-4, atol=1e-7)


def test_images_three_pixels_high_are_not_mistaken_for_planes(tmp_path, images):
    path = save_vit(tmp_path / "judge")
    narrow = np.ascontiguousarray(images[:, :3, ::2])
    tall = narrow.repeat(5, axis=1).repeat(5, axis=2)
    judge = ImageClassifier.from_directory(path)
    # Bilinear enlargement of both gives nearly the same picture.
    np.testing.assert_allclose(judge.classify(narrow), judge.classify(tall), atol=0.1)


def test_no_images_give_no_rows_and_other_arrays_are_refused(tmp_path, images):
    judge = ImageClassifier.from_directory(save_vit(tmp_path / "judge"))
    assert judge.classify(images[:0]).shape == (0, 3)
    for wrong in (images[0], images.astype(np.float32), images[..., :2]):
        with pytest.raises(ValueError, match=r"expected uint8 RGB images \[N, H, W, 3\]"):
            judge.classify(wrong)


# --- directories that are refused


def change_config(path, **values) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def without_safetensors(path):
    save_vit(path)
    model = ViTForImageClassification.from_pretrained(path)
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def without_head(path):
    save_vit(path)
    ViTModel(vit()).save_pretrained(path)


def with_another_head(path):
    save_vit(path)
    change_config(path, id2label={str(i): str(i) for i in range(5)})


def of_texts(path):
    save_vit(path)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    BertModel(BertConfig(**sizes, num_hidden_layers=1, vocab_size=9)).save_pretrained(path)


def with_code(path):
    """A model type that only code in the directory could make sense of."""
    save_vit(path)
    (path / "code.py").write_text(f"open({str(path / 'ran')!r}, 'w')\n")
    code = {"AutoConfig": "code.C", "AutoModelForImageClassification": "code.M"}
    change_config(path, model_type="theirs", auto_map=code)


def cut_short(path):
    save_vit(path)
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:1000])


def without_processor(path):
    save_vit(path)
    (path / "preprocessor_config.json").unlink()


def an_adapter(path):
    save_vit(path)
    (path / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "config.json is not there"),
        (without_safetensors, "no safetensors weights.*pickles"),
        (without_head, r"weights lack \['classifier.bias', 'classifier.weight'\]"),
        (with_another_head, r"weights lack \['classifier.bias', 'classifier.weight'\].*shape"),
        (of_texts, "not an image classifier"),
        (with_code, "not an image classifier"),
        (cut_short, "not an image classifier"),
        (without_processor, "not an image classifier"),
        (an_adapter, "is an adapter"),
        (lambda path: save_vit(path, id2label={0: "x", 1: "x"}), "labels twice"),
        (lambda path: save_vit(path, id2label={0: "x"}), r"\['x'\].*gives no probabilities"),
        (lambda path: save_vit(path, problem_type="regression"), "gives no probabilities"),
    ],
)
def test_what_is_no_whole_image_classifier_is_refused(tmp_path, make, words):
    path = tmp_path / "judge"
    make(path)
    with pytest.raises(ValueError, match=rf"(?s)judge'.*{words}"):
        ImageClassifier.from_directory(path)
    assert not (path / "ran").exists()


def test_a_single_sigmoid_is_a_judge(tmp_path, images):
    options = {"id2label": {0: "nsfw"}, "problem_type": "multi_label_classification"}
    judge = ImageClassifier.from_directory(save_vit(tmp_path / "judge", **options))
    assert judge.classify(images).shape == (7, 1) and judge.classify(images).std() > 1e-3
