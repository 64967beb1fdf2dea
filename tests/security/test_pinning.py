"""Whatever is fetched from a hub is named with its commit, everywhere by the same one."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest
import yaml
from pydantic import ValidationError

from safetydpo_kedro.datasets import (
    ChatModelDataset,
    DiffusionPipelineDataset,
    ExternalModelsDataset,
)

from .code_rules import ROOT

COMMIT = "[0-9a-f]{40}"
TEXTS = [
    path
    for folder in ("conf", "docs", "notebooks", "src", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".md", ".yml", ".py", ".ipynb")
] + [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def entries(value):
    """All mappings inside of a configuration."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from entries(inner)


def test_every_configured_hub_id_has_a_commit():
    configured = [
        (path.parent.name, entry["hub_id"], entry.get("revision"))
        for path in ROOT.glob("conf/**/catalog*.yml")
        for entry in entries(yaml.safe_load(path.read_text("utf-8")) or {})
        if "hub_id" in entry
    ]
    assert {name for name, *_ in configured} == {"sd15", "sd21", "sdxl"}
    for _, hub_id, revision in configured:
        assert re.fullmatch(COMMIT, revision or ""), hub_id


def test_every_command_that_downloads_names_a_commit():
    found = 0
    for path in TEXTS:
        text = re.sub(r"\\\n\s*", " ", path.read_text("utf-8"))
        for command in re.findall(r"(?:hf|huggingface-cli) download [^`\n{]+", text):
            found += 1
            assert re.search(rf"--revision {COMMIT}\b", command), (path, command)
    assert found >= 6


def test_no_example_loads_a_model_of_the_hub_without_a_commit():
    for path in TEXTS:
        for hub_id in re.findall(r"from_pretrained\(\\?\"([\w-]+/[\w.-]+)\\?\"", path.read_text()):
            assert hub_id.startswith("data/"), path


def test_a_model_has_one_commit_everywhere():
    commits = defaultdict(set)
    for path in TEXTS:
        text = re.sub(r"\\\n\s*", " ", path.read_text("utf-8"))
        for pattern in (
            rf"hf download (\S+)[^`\n]*--revision ({COMMIT})",
            rf"(?:hub_id|model): (\S+)\n\W*revision: ({COMMIT})",
        ):
            for hub_id, commit in re.findall(pattern, text):
                commits[hub_id].add(commit)
    assert len(commits) >= 7
    assert not {name: found for name, found in commits.items() if len(found) > 1}


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "4621659840", "A" * 40])
@pytest.mark.parametrize(
    "make",
    [
        lambda revision: DiffusionPipelineDataset(hub_id="owner/model", revision=revision),
        lambda revision: DiffusionPipelineDataset(
            filepath="data/model", hub_id="owner/model", revision=revision
        ),
        lambda revision: DiffusionPipelineDataset(
            filepath="data/model", vae={"hub_id": "owner/model", "revision": revision}
        ),
        lambda revision: ExternalModelsDataset(
            models={"theirs": {"pipeline": {"hub_id": "owner/model", "revision": revision}}}
        ),
        lambda revision: ChatModelDataset(
            provider="transformers", model="owner/model", revision=revision
        ),
    ],
)
def test_a_hub_id_without_a_commit_is_refused_before_anything_is_fetched(make, revision):
    with pytest.raises((ValueError, ValidationError)) as error:
        make(revision)
    for words in ("'owner/model'", "revision", "40 hex digits", repr(revision), "local directory"):
        assert words in str(error.value)


def test_a_hub_id_with_a_commit_and_a_local_directory_are_taken(tmp_path):
    DiffusionPipelineDataset(hub_id="owner/model", revision="0" * 40)
    DiffusionPipelineDataset(filepath="data/model")
    ChatModelDataset(provider="transformers", model="owner/model", revision="0" * 40)
    ChatModelDataset(provider="transformers", model=str(tmp_path))


def test_another_commit_of_a_language_model_is_another_model():
    first, second = (
        ChatModelDataset(provider="transformers", model="owner/model", revision=digit * 40)
        for digit in "01"
    )
    assert first.fingerprint_options != second.fingerprint_options
