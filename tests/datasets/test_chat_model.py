"""A language model as a catalog entry: cheap to load, and silent about secrets."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from kedro.io import DataCatalog, DatasetError
from pydantic import ValidationError

from safetydpo_kedro.datasets import ChatModelDataset
from safetydpo_kedro.datasets.freshness import free_input_fingerprint
from safetydpo_kedro.prompts.chat_openai import OpenAIChat
from safetydpo_kedro.prompts.chat_transformers import TransformersChat

SERVER = {"provider": "openai", "model": "small"}
ENTRY = {"type": "safetydpo_kedro.datasets.ChatModelDataset", **SERVER}


def test_the_provider_decides_what_is_loaded(tmp_path):
    assert isinstance(ChatModelDataset(**SERVER).load(), OpenAIChat)
    local = ChatModelDataset(provider="transformers", model=str(tmp_path), gguf_file="x.gguf")
    assert isinstance(local.load(), TransformersChat)


def test_loading_imports_no_client_and_no_model():
    code = (
        "import sys; from safetydpo_kedro.datasets import ChatModelDataset as D;"
        "[repr(D(provider=p, model='.').load()) for p in ('openai', 'transformers')];"
        "sys.exit(any(m in sys.modules for m in ('openai', 'transformers', 'torch', 'tenacity')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_credentials_come_from_the_catalog_and_are_shown_nowhere():
    catalog = DataCatalog.from_config(
        {"language_model": ENTRY | {"credentials": "key"}}, {"key": {"api_key": "s3cret"}}
    )
    dataset = catalog.get("language_model")
    shown = f"{dataset!r} {dataset} {dataset.load()!r} {dataset._describe()}"
    assert "s3cret" not in shown
    assert free_input_fingerprint(dataset) == free_input_fingerprint(ChatModelDataset(**SERVER))


def test_the_fingerprint_follows_the_model_and_its_sampling_only(tmp_path):
    def fingerprint(**settings):
        return free_input_fingerprint(ChatModelDataset(**SERVER | settings))

    same = fingerprint()
    assert fingerprint(base_url="http://elsewhere/v1", timeout=1, concurrency=2) == same
    assert fingerprint(temperature=0.2) != same
    assert fingerprint(model="large") != same
    assert (
        free_input_fingerprint(ChatModelDataset(provider="transformers", model=str(tmp_path)))
        != same
    )


def test_the_fingerprint_of_a_local_model_follows_its_files(tmp_path):
    def fingerprint():
        return free_input_fingerprint(
            ChatModelDataset(provider="transformers", model=str(tmp_path))
        )

    before = fingerprint()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert fingerprint() != before


def test_it_travels_to_the_workers_of_a_parallel_run():
    dataset = pickle.loads(pickle.dumps(ChatModelDataset(**SERVER, credentials={"api_key": "k"})))
    assert dataset.load().identity == ChatModelDataset(**SERVER).load().identity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SERVER | {"provider": "other"}, "one of openai, transformers, got 'other'"),
        (SERVER | {"batch_size": 2}, "Unknown key"),
        (SERVER | {"temperature": -1}, "temperature"),
        (SERVER | {"credentials": {"apikey": "k"}}, r"unknown \['apikey'\]; give api_key"),
        ({"provider": "transformers", "model": ""}, "model"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(settings, message):
    with pytest.raises((ValueError, ValidationError), match=message):
        ChatModelDataset(**settings)


def test_a_language_model_cannot_be_saved():
    with pytest.raises(DatasetError, match="not saved"):
        ChatModelDataset(**SERVER).save(1)
