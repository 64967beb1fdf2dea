"""The Inception of FID with local weights, against torch-fidelity and torchmetrics."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from safetydpo_kedro.metrics.fid import frechet_distance
from safetydpo_kedro.metrics.inception import InceptionNetwork, convert_inception


def random_weights() -> dict[str, torch.Tensor]:
    """Random weights of the network, under the names of torch-fidelity's real ones."""
    blank = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    saved = {}

    def keep(self, state):
        saved.update(self.state_dict())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *args, **kwargs: {})
        patch.setattr(torch.nn.Module, "load_state_dict", keep)
        torch.manual_seed(0)
        blank.__init__("blank", ["2048"], "nowhere")
    # As they are, features would vanish over fifty layers.
    return {n: t * 2.5 if n.endswith("conv.weight") else t for n, t in saved.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The file of weights, as torch-fidelity ships it."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(random_weights(), path)
    return path


@pytest.fixture(scope="module")
def network(weights):
    path = weights.with_suffix(".safetensors")
    save_file(convert_inception(weights), path)
    return InceptionNetwork(path, batch_size=3)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
    return base.repeat(8, axis=1).repeat(8, axis=2)


def test_features_equal_torch_fidelity(network, weights, images):
    theirs = FeatureExtractorInceptionV3("theirs", ["2048"], str(weights))
    (expected,) = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    ours = network.encode_images(images)
    assert ours.shape == (8, 2048) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5, atol=1e-5)
    assert ours.std(axis=0).max() > 0.1  # the images are told apart


def test_fid_equals_that_of_torchmetrics(network, weights, images):
    metric = FrechetInceptionDistance(
        feature=2048, feature_extractor_weights_path=str(weights), antialias=False
    )
    for chosen, real in ((images[:4], True), (images[4:] // 2, False)):
        metric.update(torch.from_numpy(chosen).permute(0, 3, 1, 2), real=real)
    ours = [network.encode_images(chosen) for chosen in (images[:4], images[4:] // 2)]
    assert frechet_distance(*ours) == pytest.approx(float(metric.compute()), rel=1e-4)
    # The means differ so much that they are most of the distance: the covariances, too.
    products = ours[0].astype(float).T @ ours[0]
    np.testing.assert_allclose(metric.real_features_cov_sum, products, rtol=1e-4, atol=1e-4)


def test_the_pth_file_is_read_like_its_conversion(network, weights, images):
    direct = InceptionNetwork(weights, batch_size=3)
    np.testing.assert_array_equal(
        direct.encode_images(images[:3]), network.encode_images(images[:3])
    )


def test_weights_without_counters_of_batches_fit(weights, tmp_path, network, images):
    """As old files of PyTorch have them; inference reads none."""
    tensors = {n: t for n, t in convert_inception(weights).items() if "num_batches" not in n}
    path = tmp_path / "old.safetensors"
    save_file(tensors, path)
    old = InceptionNetwork(path)
    np.testing.assert_array_equal(old.encode_images(images[:1]), network.encode_images(images[:1]))


def test_it_infers_and_does_not_train(network, images):
    """Features of an image do not hang on its neighbours."""
    alone = np.concatenate([network.encode_images(image[None]) for image in images[:4]])
    np.testing.assert_allclose(alone, network.encode_images(images[:4]), rtol=1e-5, atol=1e-5)


def test_names_and_hashes(network, weights):
    content = weights.with_suffix(".safetensors").read_bytes()
    assert network.weights_sha256 == hashlib.sha256(content).hexdigest()
    assert network.name == "inception-v3-2015-12-05/weights.safetensors"
    assert (network.batch_size, network.device) == (3, torch.device("cpu"))


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (self.marker, "w"))


def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": Evil(str(marker))}, path)
    with pytest.raises(ValueError, match="not a file of tensors alone"):
        convert_inception(path)
    path.write_bytes(pickle.dumps(Evil(str(marker))))
    with pytest.raises(ValueError, match="not a file of tensors alone"):
        convert_inception(path)
    assert not marker.exists()


def test_other_files_are_refused_with_advice(tmp_path):
    for read in (convert_inception, InceptionNetwork):
        with pytest.raises(ValueError, match=r"no Inception weights at .*torch-fidelity"):
            read(tmp_path / "nowhere.pth")
    other, converted = tmp_path / "other.pth", tmp_path / "other.safetensors"
    torch.save({"weight": torch.ones(1)}, other)
    save_file({"weight": torch.ones(1)}, converted)
    for read, path in (
        (convert_inception, other),
        (InceptionNetwork, other),
        (InceptionNetwork, converted),
    ):
        with pytest.raises(ValueError, match=r"not hold the Inception of FID.*bring") as error:
            read(path)
        assert str(path) in str(error.value) and len(str(error.value)) < 700
    torch.save([torch.ones(1)], other)
    with pytest.raises(ValueError, match="no tensors by name"):
        InceptionNetwork(other)
    for path in (other, converted):
        path.write_bytes(b"<html>not found</html>")
        with pytest.raises(ValueError, match="not a file of tensors alone"):
            InceptionNetwork(path)


def test_one_tensor_of_another_shape_is_named(weights, tmp_path):
    tensors = convert_inception(weights)
    tensors["fc.weight"] = torch.zeros(1000, 2048)  # as torchvision's Inception has it
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"size mismatch for fc\.weight"):
        InceptionNetwork(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "images",
    [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((1, 3, 8, 8), np.uint8), np.zeros((1, 8, 8, 3))],
)
def test_images_must_be_images(network, images):
    with pytest.raises(ValueError, match="at least one uint8 RGB image"):
        network.encode_images(images)
