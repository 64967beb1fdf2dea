"""Catalog, registry and configuration agree with each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kedro.framework.project import configure_project, pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import MemoryDataset

from safetydpo_kedro.settings import CATEGORIES, EXPERTS, PUBLISHED, VARIANTS

ROOT = Path(__file__).parents[1]
# Made by prompt_import, and need not be there.
IMPORTED = {"imported_pairs", *(f"{name}_prompts" for name in PUBLISHED)}
IN_MEMORY = {"pictogram_tokenizer", "pictogram_clip", "pictogram_autoencoder", "pictogram_unet"}


@pytest.fixture(scope="module")
def context():
    bootstrap_project(ROOT)
    configure_project("safetydpo_kedro")
    with KedroSession.create(ROOT) as session:
        yield session.load_context()


def parameters(**overrides):
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, runtime_params=overrides) as session:
        return session.load_context().params


def test_the_registry_has_the_pipelines_and_a_default_without_pretraining(context):
    parts = ["dataset_generation", "expert_training", "merging", "evaluation"]
    extra = ["ablations", "adversarial", "export", "hardening", "incremental", "judge_conversion"]
    extra += ["pictogram_pretraining", "prompt_import", "scoring"]
    assert set(pipelines) == {*parts, *extra, "__default__"}
    nodes = {node.name for name in parts for node in pipelines[name].nodes}
    assert {node.name for node in pipelines["__default__"].nodes} == nodes


def test_every_artifact_of_every_pipeline_is_declared_in_the_catalog(context):
    catalog = context.catalog
    for name, pipeline in pipelines.items():
        for dataset in pipeline.datasets():
            if dataset.startswith("params:") or dataset == "parameters":
                assert dataset in catalog, f"{name} reads {dataset}"
            elif dataset not in IN_MEMORY:
                assert not isinstance(catalog.get(dataset), MemoryDataset), f"{name}: {dataset}"
                layer = catalog.get(dataset).metadata["kedro-viz"]["layer"]
                assert layer in {path.name for path in (ROOT / "data").iterdir()}


def test_every_catalog_entry_is_used(context):
    used = {dataset for pipeline in pipelines.values() for dataset in pipeline.datasets()}
    assert set(context.catalog.keys()) - used <= {"parameters"} | {
        key for key in context.catalog if key.startswith("params:")
    }


def test_free_inputs_of_the_default_run_are_raw_data(context):
    catalog = context.catalog
    for dataset in pipelines["__default__"].inputs():
        if not dataset.startswith("params:") and dataset not in IMPORTED:
            assert catalog.get(dataset).metadata["kedro-viz"]["layer"] == "01_raw"


def test_every_category_has_its_expert_and_every_variant_its_scores(context):
    outputs = pipelines["__default__"].all_outputs()
    assert {f"{expert}_expert" for expert in EXPERTS} <= outputs
    assert {f"{variant}_judgements" for variant in VARIANTS} <= outputs
    assert set(CATEGORIES) < set(EXPERTS) < set(VARIANTS)


def test_parameters_hold_for_all_experts_and_an_override_for_one():
    params = parameters(expert_training={"steps": 7}, hate={"expert_training": {"beta": 3.0}})
    assert params["hate"]["expert_training"].steps == 7
    assert params["hate"]["expert_training"].beta == 3.0
    assert params["sexual"]["expert_training"].beta != 3.0
    assert params["hate"]["categories"] == ["hate"]
    assert params["all_single"]["categories"] == list(CATEGORIES)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"expert_training": {"stepz": 2}}, ["stepz", "2"]),
        ({"expert_training": {"beta": -1}}, ["beta", "-1"]),
        ({"hate": {"expert_training": {"strategy": "other"}}}, ["strategy", "other"]),
        ({"evaluation": {"drawing": {"sampling": {"steps": 0}}}}, ["steps", "0"]),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_key_and_value(override, words):
    with pytest.raises(Exception) as error:
        parameters(**override)
    for word in words:
        assert word in str(error.value)


def test_start_up_does_not_import_torch():
    code = (
        "import sys; from kedro.framework.startup import bootstrap_project; "
        f"bootstrap_project({str(ROOT)!r}); "
        "from kedro.framework.project import pipelines; list(pipelines); "
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
