"""Runs recorded in MLflow by the real kedro-mlflow, in a store of SQLite, and runs that are not."""

from __future__ import annotations

import math
import shutil
import sys
import traceback
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from kedro.framework.project import configure_project
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner, ThreadRunner
from pydantic import BaseModel

from safetydpo_kedro import pipeline_registry, tracking
from safetydpo_kedro.reporting.key_figures import key_figures
from safetydpo_kedro.runners import DaskRunner

from ..small_project import ALL, Project, note
from ..small_project import register_pipelines as small_pipelines

ROOT = Path(__file__).parents[2]
CATALOG = """
_report: &report {type: pandas.CSVDataset, metadata: {kedro-viz: {layer: 08_reporting}}}
benchmark_table: {<<: *report, filepath: data/08_reporting/benchmark_table.csv}
hate_history: {<<: *report, filepath: data/08_reporting/training/hate.csv}
key_figures: {type: pandas.CSVDataset, filepath: data/key_figures.csv}
"""
PARAMETERS = f"""
hate:
  training: {{steps: 30, lora: {{rank: 4}}}}
  prompts: {["x" * 100] * 100}
"""
STEPS = 30


class Lora(BaseModel):
    rank: int
    alpha: float = 8.0


class Training(BaseModel):
    steps: int
    lora: Lora
    fails: bool = False


def train(parameters: Training, prompts: list, log: str) -> pd.DataFrame:
    note(log, "train")
    on_step = tracking.step_logger("hate")
    for step in range(parameters.steps):
        if on_step:
            on_step(step, {"loss": 1.0 / (1 + step), "norm": math.nan if step == 3 else step})
    if parameters.fails:
        raise RuntimeError("out of memory")
    return pd.DataFrame({"step": range(parameters.steps)})


def evaluate(history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = pd.DataFrame(
        {"variant": ["base", "hate"], "benchmark": "unsafe", "ip": [0.9, 0.2], "fid": [5.0, None]}
    )
    return table, key_figures(pd.DataFrame({"benchmark": [], "category": []}), table)


def register_pipelines() -> dict[str, Pipeline]:
    training = Pipeline(
        [Node(train, ["params:training", "params:prompts", "params:log"], "history")],
        namespace="hate",
        parameters={"log"},
        outputs={"history": "hate_history"},
    )
    evaluation = Pipeline([Node(evaluate, "hate_history", ["benchmark_table", "key_figures"])])
    return {**small_pipelines(), "training": training, "evaluation": evaluation}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where runs are started; the store that the first one makes serves all."""
    return tmp_path_factory.mktemp("started_here")


@pytest.fixture
def project(tmp_path, folder, monkeypatch) -> Project:
    monkeypatch.setattr(pipeline_registry, "register_pipelines", register_pipelines)
    monkeypatch.chdir(folder)
    configure_project("safetydpo_kedro")
    project = Project(tmp_path)
    conf = tmp_path / "conf/base"
    (conf / "catalog_training.yml").write_text(CATALOG)
    (conf / "parameters_training.yml").write_text(PARAMETERS)
    shutil.copy(ROOT / "conf/base/mlflow.yml", conf)
    return project


@pytest.fixture
def client():
    pytest.importorskip("kedro_mlflow", reason="the extra mlflow is not installed")
    from mlflow import MlflowClient

    return MlflowClient("sqlite:///mlflow.db")


def last_run(client):
    experiment = client.get_experiment_by_name("safetydpo_kedro")
    return client.search_runs([experiment.experiment_id], max_results=1)[0]


def curve(client, run, name: str) -> dict[int, float]:
    return {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}


def artifacts(client, run, folder: str = "") -> set[str]:
    return {item.path for item in client.list_artifacts(run.info.run_id, folder)}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("parameters", [{}, {"mlflow": False}])
def test_a_run_that_is_not_recorded_writes_nothing_and_does_not_import_the_plugin(
    project, tmp_path, monkeypatch, parameters
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "kedro_mlflow", None)  # importing it is an error now
    assert project.run("training", "first", **parameters) == ["train", *ALL[:2]]
    written = {path.name for path in tmp_path.rglob("*")}
    assert not [name for name in written if name.startswith("ml") and name != "mlflow.yml"]


def test_without_the_package_the_error_says_what_to_install(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "kedro_mlflow", None)
    monkeypatch.delitem(sys.modules, "safetydpo_kedro.hooks.mlflow", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'safetydpo_kedro\[mlflow\]'"):
        project.run(mlflow=True)


def test_the_switch_is_true_or_false(project):
    with pytest.raises(ValueError, match="'mlflow' = 'yes': must be true or false"):
        project.run(mlflow="yes")


def test_parameters_of_typed_models_are_recorded_one_by_one(project, client):
    project.run("training", mlflow=True)
    run = last_run(client)
    assert run.info.status == "FINISHED"
    parameters = run.data.params
    assert parameters["hate.training.steps"] == str(STEPS)
    assert parameters["hate.training.lora.rank"] == "4"
    assert parameters["hate.training.lora.alpha"] == "8.0"
    assert parameters["hate.prompts"].startswith("['xxx")
    assert len(parameters["hate.prompts"]) == 6000
    assert run.data.tags["pipeline_names"] == "['training']"


@pytest.mark.parametrize("runner", [SequentialRunner, ThreadRunner])
def test_curves_have_all_their_steps(project, client, runner):
    project.run("training", runner=runner, mlflow=True)
    run = last_run(client)
    assert curve(client, run, "hate/loss") == {i: 1 / (1 + i) for i in range(STEPS)}
    assert curve(client, run, "hate/norm") == {i: i for i in range(STEPS) if i != 3}


@pytest.mark.slow
def test_workers_of_a_cluster_record_in_the_run_that_was_started(project, client):
    project.run("training", "evaluation", runner=partial(DaskRunner, workers=1), mlflow=True)
    run = last_run(client)
    assert run.info.status == "FINISHED"
    assert curve(client, run, "hate/loss") == {i: 1 / (1 + i) for i in range(STEPS)}
    assert run.data.params["hate.training.steps"] == str(STEPS)
    assert run.data.metrics["unsafe/ip/hate"] == 0.2
    assert artifacts(client, run) == {"08_reporting"}


def test_curves_of_a_training_that_fails_are_kept(project, client):
    with pytest.raises(RuntimeError, match="out of memory"):
        project.run("training", mlflow=True, hate={"training": {"fails": True}})
    run = last_run(client)
    assert run.info.status == "FAILED"
    assert len(curve(client, run, "hate/loss")) == STEPS


def test_reports_become_artifacts_and_results_become_metrics(project, client):
    project.run("training", "evaluation", mlflow=True)
    run = last_run(client)
    assert artifacts(client, run) == {"08_reporting"}
    report = "08_reporting/benchmark_table.csv"
    assert artifacts(client, run, "08_reporting") == {report, "08_reporting/training"}
    assert run.data.metrics["unsafe/ip/hate"] == 0.2
    assert run.data.metrics["unsafe/fid/base"] == 5.0
    assert "unsafe/fid/hate" not in run.data.metrics
    assert run.data.metrics["key figures/IP of base unsafe prompts"] == 0.9


def test_a_run_with_nothing_to_do_records_nothing_but_itself(project, client):
    project.run("training", mlflow=True)
    first = last_run(client)
    assert project.run("training", mlflow=True) == []
    run = last_run(client)
    assert run.info.run_id != first.info.run_id
    assert run.data.params == run.data.metrics == {}


def test_passwords_in_addresses_are_in_no_record_and_no_log(project, client, caplog, folder):
    address = "postgresql://me:canary-5f0c2a77@host/db"
    project.run("training", mlflow=True, store={"address": address})
    run = last_run(client)
    assert "'postgresql://***@host/db'" in str(run.data.tags)
    assert "canary" not in str(run.to_dictionary()) + caplog.text
    assert not any(b"canary" in f.read_bytes() for f in folder.rglob("*") if f.is_file())


@pytest.mark.parametrize("user", ["me:canary-5f0c2a77", "canary-5f0c2a77"])
def test_a_password_in_the_address_of_a_server_is_refused_unseen(project, caplog, capfd, user):
    pytest.importorskip("kedro_mlflow", reason="the extra mlflow is not installed")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as error:
        project.run("training", mlflow=True, mlflow_server=f"http://{user}@127.0.0.1:9")
    printed = "".join(traceback.format_exception(error.value))
    assert "canary" not in printed + caplog.text + "".join(capfd.readouterr())


def test_a_store_that_fails_is_reported_without_its_password(client, monkeypatch, caplog):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def fail(*_, **__):
        raise MlflowException("API request to http://me:canary-5f0c2a77@host:1/api failed")

    monkeypatch.setattr(MlflowClient, "log_batch", fail)
    tracking.MetricBuffer("run").add(0, {"loss": 1.0})
    assert "http://***@host:1/api failed" in caplog.text and "canary" not in caplog.text


def test_a_namespace_of_an_environment_is_recorded(project, client, tmp_path):
    from kedro.framework.session import KedroSession

    (tmp_path / "conf/sd15").mkdir()
    (tmp_path / "conf/sd15/parameters.yml").write_text("mlflow: true\nhate: {training: {steps: 2}}")
    with KedroSession.create(tmp_path, env="sd15") as session:
        session.run(pipeline_names=["training"], namespaces=["hate"])
    run = last_run(client)
    assert run.data.params["hate.training.steps"] == "2"
    assert run.data.tags["env"] == "sd15"
