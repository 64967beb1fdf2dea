"""Every environment resolves, carries its recipe, and differs from conf/base in few lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.framework.project import configure_project, pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from safetydpo_kedro.datasets.freshness import expected_provenances
from safetydpo_kedro.parameters import ExpertTrainingParameters
from safetydpo_kedro.settings import EXPERTS, PUBLISHED

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ("sd15", "sd21", "sdxl")
# What SafetyDPO's reference implementation uses for SD 1.5.
REFERENCE = {
    "strategy": "both_prompts",
    "beta": 5000.0,
    "preference_weight": 1.0,
    "supervised_weight": 0.0,
    "redirection_weight": 0.0,
    "steps": 2000,
    "batch_size": 16,
    "micro_batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 1e-5,
    "scale_learning_rate": True,
    "schedule": "constant_with_warmup",
    "warmup_steps": 500,
    "max_gradient_norm": 1.0,
    "gradient_checkpointing": False,
}
SDXL = {
    "optimizer": "adafactor",
    "scale_learning_rate": False,
    "warmup_steps": 0,
    "gradient_checkpointing": True,
}


@pytest.fixture(params=ENVIRONMENTS, scope="module")
def environment(request):
    """Name and context of an environment."""
    bootstrap_project(ROOT)
    configure_project("safetydpo_kedro")
    with KedroSession.create(ROOT, env=request.param) as session:
        yield request.param, session.load_context()


def test_every_data_set_is_made_and_lies_in_the_environments_own_folder(environment):
    name, context = environment
    catalog, pipeline = context.catalog, pipelines["__default__"]
    for dataset in pipeline.all_outputs():
        described = str(catalog.get(dataset)._describe())
        assert f"data/{name}/" in described, dataset
    free = {d for d in pipeline.inputs() if not d.startswith("params:")}
    elsewhere = {"base_model", "external_models", "language_model", "prompt_templates"}
    imported = {"imported_pairs", *(f"{benchmark}_prompts" for benchmark in PUBLISHED)}
    for dataset in free - elsewhere - imported:
        assert "data/01_raw/real/" in str(catalog.get(dataset)._describe()), dataset


def test_the_model_is_a_local_copy_or_one_of_the_hub(environment):
    name, context = environment
    described = context.catalog.get("base_model")._describe()
    assert described["filepath"] == (ROOT / f"data/{name}/01_raw/base_model").as_posix()
    assert described["hub_id"].count("/") == 1
    assert described["dtype"] == "bfloat16"


def test_every_expert_has_the_reference_recipe(environment):
    name, context = environment
    noise = context.params["noise"]
    assert (noise.draws, noise.caption_dropout) == (4, 0.2)
    expected = REFERENCE | (SDXL if name == "sdxl" else {})
    for expert in EXPERTS:
        parameters = context.params[expert]["expert_training"]
        assert isinstance(parameters, ExpertTrainingParameters)
        assert {key: getattr(parameters, key) for key in expected} == expected
        assert parameters.lora.rank == 4 and parameters.lora.alpha is None
        assert parameters.lora.target_modules == ("to_q", "to_k", "to_v", "to_out.0")
        assert parameters.preservation.weight == 0
        assert parameters.validation.blur == "all"
        assert str(parameters.checkpoints.directory) == f"data/{name}/06_models/checkpoints"


def test_nothing_of_the_pictogram_world_is_left_and_images_are_blurred(environment):
    _, context = environment
    evaluation, generation = context.params["evaluation"], context.params["dataset_generation"]
    assert evaluation["checker"] is None and evaluation["targets"] is None
    assert evaluation["grid"].blur == generation["contact_sheet"].blur == "all"
    assert evaluation["judges"].nudity.resolution == 320
    assert "pictograms" not in generation["prompt_writing"].writer


def test_an_environment_states_only_what_differs():
    for name in ENVIRONMENTS:
        lines = sum(
            len([line for line in file.read_text().splitlines() if line and line[0] != "#"])
            for file in (ROOT / "conf" / name).glob("*.yml")
        )
        assert lines <= 90, name


def test_the_precision_can_be_chosen_for_one_run():
    bootstrap_project(ROOT)
    with KedroSession.create(ROOT, env="sdxl", runtime_params={"dtype": "float16"}) as session:
        described = session.load_context().catalog.get("base_model")._describe()
    assert described["dtype"] == "float16"


@pytest.mark.slow
def test_scores_of_the_reference_outlive_another_recipe_but_not_other_noise():
    bootstrap_project(ROOT)

    def expected(**parameters):
        with KedroSession.create(ROOT, runtime_params=parameters) as session:
            catalog = session.load_context().catalog
            generation = pipelines["dataset_generation"]
            return expected_provenances(generation, catalog)["reference_scores"].fingerprint

    recipe = {"beta": 7.0, "strategy": "unsafe_prompt", "checkpoints": {"every": 3}}
    assert expected(expert_training=recipe) == expected()
    assert expected(noise={"draws": 3}) != expected()
