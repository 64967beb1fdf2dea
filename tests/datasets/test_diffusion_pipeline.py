"""The catalog entry of a model, with real pipelines of random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from diffusers import AutoencoderKL
from kedro.io import DatasetError

from benchmarks.architectures import random_pipeline
from safetydpo_kedro.datasets import DiffusionPipelineDataset
from safetydpo_kedro.diffusion.families.stable_diffusion_xl import StableDiffusionXL

from ..s3_server import contents


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A directory laid out like the published SDXL: plain files, and the variant fp16."""
    path = tmp_path_factory.mktemp("models") / "sdxl"
    pipeline = random_pipeline("sdxl", tiny=True)
    pipeline.save_pretrained(path)
    pipeline.to(torch.float16).save_pretrained(path, variant="fp16")
    return path


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_a_model_comes_with_its_precision_its_variant_and_another_autoencoder(folder, tmp_path):
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    vae.register_to_config(force_upcast=False)
    with torch.no_grad():
        vae.quant_conv.weight.zero_()
    vae.save_pretrained(tmp_path / "vae")
    dataset = DiffusionPipelineDataset(
        filepath=str(folder),
        variant="fp16",
        dtype="bfloat16",
        device="cpu",
        vae={"filepath": str(tmp_path / "vae")},
        vae_slicing=True,
        vae_tiling=True,
    )
    model = dataset.load()
    assert isinstance(model, StableDiffusionXL)
    assert model.dtype == torch.bfloat16
    assert model.pipeline.vae.dtype == model.pipeline.text_encoder_2.dtype == torch.bfloat16
    assert model.pipeline.vae.use_slicing and model.pipeline.vae.use_tiling
    assert not model.pipeline.vae.config.force_upcast
    assert not model.pipeline.vae.quant_conv.weight.any()


def test_a_local_copy_without_the_variant_is_loaded_from_its_plain_files(tmp_path):
    random_pipeline("sd15", tiny=True).save_pretrained(tmp_path / "model")
    dataset = DiffusionPipelineDataset(
        filepath=str(tmp_path / "model"),
        hub_id="owner/model",
        revision="a" * 40,
        variant="fp16",
        device="cpu",
    )
    assert dataset.load().dtype == torch.float32


def test_without_a_local_copy_the_hub_is_asked_and_the_error_says_what_to_do(tmp_path, no_network):
    dataset = DiffusionPipelineDataset(
        filepath=str(tmp_path / "model"), hub_id="owner/model", revision="a" * 40, device="cpu"
    )
    with pytest.raises(DatasetError) as error:
        dataset.load()
    for words in ("hub id 'owner/model' (revision aaaa", "hf download", str(tmp_path / "model")):
        assert words in str(error.value)


def test_an_autoencoder_that_cannot_be_fetched_is_named(folder, no_network):
    dataset = DiffusionPipelineDataset(
        filepath=str(folder), device="cpu", vae={"hub_id": "owner/vae", "revision": "a" * 40}
    )
    with pytest.raises(DatasetError, match="owner/vae"):
        dataset.load()


def test_a_missing_directory_is_named_with_what_to_do(tmp_path):
    dataset = DiffusionPipelineDataset(filepath=str(tmp_path / "model"), hint="Run make pretrain.")
    with pytest.raises(DatasetError, match=r"no such folder.*model.*Run make pretrain"):
        dataset.load()


def break_index(path: Path) -> None:
    (path / "model_index.json").unlink()


def break_family(path: Path) -> None:
    index = path / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))


def break_weights(path: Path) -> None:
    for file in (path / "unet").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))


def break_part(path: Path) -> None:
    (path / "vae/diffusion_pytorch_model.safetensors").unlink()


def break_shape(path: Path) -> None:
    config = path / "unet/config.json"
    config.write_text(
        config.read_text().replace('"cross_attention_dim": 16', '"cross_attention_dim": 8')
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_index, ["model_index.json", "holds scheduler"]),
        (break_family, ["FluxPipeline", "StableDiffusionXLPipeline", "one file"]),
        (break_weights, ["'unet'", "only the pickle", "save_pretrained"]),
        (break_part, ["'vae'", "no weights"]),
        (break_shape, ["cannot load", "check the folder"]),
    ],
)
def test_a_wrong_layout_is_one_error_that_says_where_and_what_to_do(tmp_path, damage, words):
    path = tmp_path / "model"
    random_pipeline("sd15", tiny=True).save_pretrained(path)
    damage(path)
    with pytest.raises(DatasetError) as error:
        DiffusionPipelineDataset(filepath=str(path), device="cpu").load()
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "filepath"),
        ({"filepath": "a", "dtype": "int8"}, "'int8'"),
        ({"filepath": "a", "vae": {"hub": "b"}}, "vae: unknown keys"),
        ({"filepath": "a", "vae": {"variant": "fp16"}}, "vae: give filepath"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionPipelineDataset(**options)


def test_offloading_from_the_cpu_to_the_cpu_is_refused(folder):
    dataset = DiffusionPipelineDataset(filepath=str(folder), device="cpu", offload=True)
    with pytest.raises(DatasetError, match="offload: true needs an accelerator"):
        dataset.load()


def test_what_changes_results_is_in_the_fingerprint_and_the_device_is_not():
    options = {"hub_id": "owner/model", "revision": "a" * 40, "dtype": "bfloat16"}
    first = DiffusionPipelineDataset(**options, device="cpu").fingerprint_options
    assert first == DiffusionPipelineDataset(**options, device="cuda:1").fingerprint_options
    for other in (
        {"revision": "b" * 40},
        {"vae": {"hub_id": "x/y", "revision": "a" * 40}},
        {"dtype": "float16"},
    ):
        assert first != DiffusionPipelineDataset(**{**options, **other}).fingerprint_options


def test_another_local_autoencoder_is_seen_by_its_content_and_not_by_its_place(tmp_path):
    def options(folder: str) -> dict:
        vae = {"filepath": str(tmp_path / folder)}
        return DiffusionPipelineDataset(
            hub_id="owner/model", revision="a" * 40, vae=vae
        ).fingerprint_options

    for folder, weights in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights.safetensors").write_text(weights)
    assert options("a") == options("b")
    assert options("a") != options("c")


class DiskFull:
    """A pipeline whose saving fails half-way."""

    def save_pretrained(self, path: Path, safe_serialization: bool) -> None:
        Path(path).mkdir(parents=True)
        (Path(path) / "unet.safetensors").write_text("weights")
        raise RuntimeError("disk full")


def test_a_failed_save_keeps_the_old_model_and_leaves_nothing_else(tmp_path):
    dataset = DiffusionPipelineDataset(filepath=str(tmp_path / "model"), device="cpu")
    dataset.save(random_pipeline("sd15", tiny=True))
    with pytest.raises(DatasetError, match="disk full"):
        dataset.save(DiskFull())
    assert dataset.exists()
    assert dataset.load().train_timesteps == 1000
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_a_saved_model_does_not_say_where_it_was_loaded_from(folder, tmp_path):
    """The same model gives the same files wherever it lies."""
    shutil.copytree(folder, tmp_path / "elsewhere")
    for number, place in enumerate((folder, tmp_path / "elsewhere")):
        model = DiffusionPipelineDataset(filepath=str(place)).load()
        DiffusionPipelineDataset(filepath=str(tmp_path / str(number))).save(model.pipeline)
    assert contents(tmp_path / "0") == contents(tmp_path / "1")
    text = b"".join(content for name, content in contents(tmp_path / "0").items() if "json" in name)
    assert str(folder.parent).encode() not in text and b"_name_or_path" not in text
