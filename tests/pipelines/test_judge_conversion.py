"""The conversion pipeline as it is configured, on files in the published formats."""

from __future__ import annotations

import hashlib
import json
import os
import pickle

import numpy as np
import pytest
import torch
from kedro.runner import SequentialRunner

from safetydpo_kedro.artifacts import file_digest
from safetydpo_kedro.datasets.freshness import expected_provenances, track
from safetydpo_kedro.pipeline_registry import DEFAULT_PIPELINES
from safetydpo_kedro.pipelines.judge_conversion import create_pipeline
from tests.metrics.test_inception import weights  # noqa: F401 - a fixture
from tests.worlds import base_catalog

PROMPTS = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float16)


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "data" / "01_raw"
    folder.mkdir(parents=True)
    return folder


def prepare(tmp_path):
    """The catalog as a run of Kedro has it, with what each output is made from."""
    catalog = base_catalog(tmp_path)
    for name, provenance in expected_provenances(create_pipeline(), catalog).items():
        track(catalog.get(name), provenance)
    return catalog


def run(tmp_path, *nodes):
    catalog = prepare(tmp_path)
    pipeline = create_pipeline()
    SequentialRunner().run(pipeline.only_nodes(*nodes) if nodes else pipeline, catalog)
    return catalog


def put_q16(inputs, content=PROMPTS):
    (inputs / "q16_prompts.p").write_bytes(pickle.dumps(content, protocol=3))


def test_q16_prompts_are_converted_and_their_origin_is_recorded(tmp_path, inputs):
    put_q16(inputs)
    catalog = run(tmp_path, "convert_q16_prompts")
    prompts = catalog["q16_prompts"].load()
    assert list(prompts) == ["prompts"] and prompts["prompts"].dtype == torch.float32
    np.testing.assert_array_equal(prompts["prompts"].numpy(), PROMPTS)
    origin = json.loads((inputs / "q16_prompts.origin.json").read_text())
    assert origin == catalog["q16_prompts_origin"].load()
    assert origin["pickle_sha256"] == file_digest(inputs / "q16_prompts.p")
    exact = PROMPTS.astype(np.float32)
    assert origin["prompts_sha256"] == hashlib.sha256(exact.tobytes()).hexdigest()
    assert origin["shape"] == [2, 16] and "ml-research/Q16" in origin["source"]
    # The manifest beside the prompts knows the pickle too.
    manifest = json.loads((inputs / "q16_prompts.safetensors.manifest.json").read_text())
    assert manifest["inputs"] == {"q16_pickle": origin["pickle_sha256"]}


def test_a_conversion_is_fresh_until_its_pickle_changes(tmp_path, inputs):
    put_q16(inputs)
    run(tmp_path, "convert_q16_prompts")
    assert prepare(tmp_path)["q16_prompts"].exists()
    put_q16(inputs, -PROMPTS)
    assert not prepare(tmp_path)["q16_prompts"].exists()


def test_inception_becomes_the_network_of_distances(tmp_path, inputs, weights):  # noqa: F811
    (inputs / "inception.pth").symlink_to(weights)
    network = run(tmp_path, "convert_inception")["fid_network"].load()
    assert network.weights_sha256 == file_digest(inputs / "inception.safetensors")
    images = np.zeros((1, 32, 32, 3), np.uint8)
    assert network.encode_images(images).shape == (1, 2048)
    assert not (inputs / "q16_prompts.safetensors").exists()


def test_without_inception_there_is_no_network_but_a_run_goes_on(tmp_path, inputs):
    assert base_catalog(tmp_path)["fid_network"].load() is None


@pytest.mark.parametrize(
    ("node", "file", "source", "other"),
    [
        ("convert_q16_prompts", "q16_prompts.p", "ml-research/Q16", "convert_inception"),
        ("convert_inception", "inception.pth", "toshas/torch-fidelity", "convert_q16_prompts"),
    ],
)
def test_a_missing_file_is_named_with_its_source_and_nothing_is_written(
    tmp_path, inputs, node, file, source, other
):
    kept = {"q16_prompts.safetensors": b"pictograms", "inception.safetensors": b"network"}
    for name, content in kept.items():
        (inputs / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        run(tmp_path, node)
    message = str(error.value)
    assert str(inputs / file) in message and source in message and f"--nodes {other}" in message
    assert {path.name: path.read_bytes() for path in inputs.iterdir()} == kept


class Call:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("file", ["q16_prompts.p", "inception.pth"])
def test_a_hostile_pickle_is_refused_and_nothing_runs_or_is_written(tmp_path, inputs, file):
    marker = tmp_path / "ran"
    (inputs / file).write_bytes(pickle.dumps(Call(marker), protocol=2))
    node = "convert_q16_prompts" if file == "q16_prompts.p" else "convert_inception"
    with pytest.raises(ValueError, match=file):
        run(tmp_path, node)
    assert not marker.exists()
    assert [path.name for path in inputs.iterdir()] == [file]


def test_the_default_run_does_not_convert():
    assert "judge_conversion" not in DEFAULT_PIPELINES
