"""Files for clusters name what the project has, and have the form that their readers want."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from safetydpo_kedro.runners import DaskRunner
from safetydpo_kedro.settings import EXPERTS, VARIANTS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RUNNER = f"safetydpo_kedro.runners.{DaskRunner.__name__}"
JOBQUEUE = ("slurm.yml", "local.yml")


def read(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def resource(name: str) -> dict:
    return yaml.safe_load(read(f"kubernetes/{name}.yml"))


def containers() -> dict[str, dict]:
    """Container by name, of all pods."""
    cluster, run = resource("cluster")["spec"], resource("run")["spec"]["template"]
    pods = [cluster["worker"]["spec"], cluster["scheduler"]["spec"], run["spec"]]
    return {c["name"]: c for pod in pods for c in pod.get("initContainers", []) + pod["containers"]}


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sl*rm")) + sorted(DEPLOY.rglob("*.sh")))
def test_scripts_of_the_shell_can_be_read(path):
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize(
    ("file", "names", "array"),
    [("slurm/experts.slurm", EXPERTS, "experts"), ("slurm/variants.slurm", VARIANTS, "variants")],
)
def test_arrays_have_the_names_of_the_code(file, names, array):
    text = read(file)
    assert re.search(rf"^{array}=\((.*?)\)", text, re.M | re.S)[1].split() == list(names)
    assert f"#SBATCH --array=0-{len(names) - 1}\n" in text


def test_stages_wait_for_what_they_need(tmp_path):
    """With a program of Slurm's name that writes down what it is given."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!/bin/bash\necho "$*" >> {tmp_path}/log\nwc -l < {tmp_path}/log\n')
    sbatch.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", DEPLOY / "slurm/stages.sh"], check=True, env=environment)
    jobs = (tmp_path / "log").read_text().splitlines()
    waits = [re.search(r"--dependency=(\S+)", job)[1] for job in jobs]
    assert waits == ["singleton"] + [f"afterok:{n}" for n in ("1", "2", "1", "3:4", "5")]
    stages = [re.search(r"--pipelines (\w+)|(\w+)\.slurm", job) for job in jobs]
    assert [stage[1] or stage[2] for stage in stages] == [
        "dataset_generation", "experts", "merging", "evaluation", "variants", "evaluation"
    ]  # fmt: skip


def test_the_script_for_batch_systems_names_the_runner_and_its_settings():
    script = read("jobqueue/run.py")
    constants = {n.value for n in ast.walk(ast.parse(script)) if isinstance(n, ast.Constant)}
    assert RUNNER in constants
    asked = set(re.findall(r'settings\["(\w+)"\]', script))
    for name in JOBQUEUE:
        assert set(yaml.safe_load(read(f"jobqueue/{name}"))) == asked
    assert "deploy/jobqueue/run.py deploy/jobqueue/slurm.yml" in read("jobqueue/driver.slurm")


@pytest.mark.parametrize("name", JOBQUEUE)
def test_jobs_are_workers_with_one_thread_that_announce_a_gpu(name):
    settings = yaml.safe_load(read(f"jobqueue/{name}"))
    options = settings["options"]
    assert (options["cores"], options["processes"]) == (1, 1)
    assert "--resources GPU=1" in options["worker_extra_args"]
    assert 1 <= settings["minimum"] <= settings["maximum"]
    assert settings["wait_for"] <= settings["maximum"]


def test_workers_on_kubernetes_have_a_gpu_and_announce_it():
    worker = containers()["worker"]
    command = " ".join(worker["args"])
    assert command.startswith("dask worker --name $(DASK_WORKER_NAME) --nthreads 1")
    assert "--resources GPU=1" in command
    limits = worker["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"  # a text: the schema of the operator wants one
    assert all(isinstance(amount, str) for amount in limits.values())


def test_all_containers_have_one_image_and_see_the_data_at_the_same_place():
    found = containers()
    assert set(found) == {"worker", "scheduler", "run", "inputs"}
    assert len({container["image"] for container in found.values()}) == 1
    claim = resource("storage")["metadata"]["name"]
    for name in ("worker", "run", "inputs"):
        mounts = {m["name"]: m["mountPath"] for m in found[name]["volumeMounts"]}
        assert mounts["data"] == "/project/data"
    for pod in (resource("cluster")["spec"]["worker"], resource("run")["spec"]["template"]):
        volumes = {v["name"]: v for v in pod["spec"]["volumes"]}
        assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim


def test_the_run_on_kubernetes_finds_the_scheduler():
    cluster = resource("cluster")
    name, service = cluster["metadata"]["name"], cluster["spec"]["scheduler"]["service"]
    assert service["selector"]["dask.org/cluster-name"] == name
    arguments = containers()["run"]["args"]
    port = next(p["port"] for p in service["ports"] if p["name"] == "tcp-comm")
    # The operator calls the service after the cluster.
    assert f"address=tcp://{name}-scheduler:{port}" in arguments
    assert arguments[arguments.index("--runner") + 1] == RUNNER
    assert (ROOT / "conf" / arguments[arguments.index("--env") + 1]).is_dir()


def test_the_image_takes_what_make_package_makes_and_extras_that_there_are():
    text, project = read("Dockerfile"), tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = re.search(r"\.whl\)\[(.*?)\]", text)[1].split(",")
    assert "dask" in extras
    assert set(extras) <= set(project["project"]["optional-dependencies"])
    page = (ROOT / "docs/how_to/install_and_package.md").read_text("utf-8")
    copied = re.findall(r"dist/(\S+)", text)
    assert [name.replace("*", "0.1.0-py3-none-any") for name in copied] == re.findall(
        r"^\| `(safetydpo\S+whl|conf\S+|data\S+gz)`", page, re.M
    )
