"""Directories of models that bring code along: refused with a reason, and the code never runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kedro.io import DatasetError

from safetydpo_kedro.datasets import ClipModelDataset, DiffusionPipelineDataset
from safetydpo_kedro.prompts.chat import ChatError, ChatRequest, Message
from safetydpo_kedro.prompts.chat_transformers import TransformersChat, TransformersSettings

from .code_rules import ROOT

SHIPPED = ROOT / "data/01_raw"


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "the_code_ran"


@pytest.fixture
def code(marker) -> str:
    return f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n"


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": ["evil", "Evil"]},
        {"_class_name": ["evil", "Evil"], "unet": ["evil", "Evil"]},
        {"unet": ["evil", "Evil"]},
        {"scheduler": ["evil", "Evil"]},
        {"_class_name": "Evil"},
        {"_class_name": None},
    ],
)
def test_code_of_a_pipeline_is_not_run(tmp_path, code, marker, changes):
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED / "base_model", folder)
    for place in (".", "unet", "scheduler"):
        (folder / place / "evil.py").write_text(code)
    (folder / "pipeline.py").write_text(code)
    edit(folder / "model_index.json", **changes)
    with pytest.raises(DatasetError):
        DiffusionPipelineDataset(filepath=str(folder), device="cpu").load()
    assert not marker.exists()


def clip_with(folder: Path, code: str, **text_cfg) -> ClipModelDataset:
    """A judge whose tokenizer is code, and which asks in its configuration that it be run."""
    shutil.copytree(SHIPPED / "judge_clip", folder)
    (folder / "evil.py").write_text(code)
    auto_map = {"AutoTokenizer": [None, "evil.Evil"]}
    edit(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map=auto_map)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= text_cfg
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return ClipModelDataset(filepath=str(folder), device="cpu")


@pytest.mark.parametrize("options", [{}, {"tokenizer_kwargs": {"trust_remote_code": True}}])
def test_code_of_a_clip_model_is_not_run(tmp_path, code, marker, options):
    dataset = clip_with(tmp_path / "clip", code, **options)
    with pytest.raises(DatasetError, match="no code that comes with weights is run"):
        dataset.load()
    assert not marker.exists()


def test_a_clip_model_does_not_fetch_another_one(tmp_path, code, marker):
    dataset = clip_with(tmp_path / "clip", code, hf_model_name="owner/model")
    with pytest.raises(DatasetError, match=r"hf_model_name = 'owner/model'"):
        dataset.load()
    assert not marker.exists()


def test_code_of_a_language_model_is_not_run_and_nobody_is_asked(tmp_path, code, marker):
    (tmp_path / "evil.py").write_text(code)
    auto_map = {name: "evil.Evil" for name in ("AutoConfig", "AutoModelForCausalLM")}
    config = {"model_type": "evil", "architectures": ["Evil"], "auto_map": auto_map}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    model = TransformersChat(TransformersSettings(model=str(tmp_path)))
    with pytest.raises(ChatError, match="cannot be loaded"):
        list(model.complete([ChatRequest((Message("user", "hello"),), seed=0)]))
    assert not marker.exists()
