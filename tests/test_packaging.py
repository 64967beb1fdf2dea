"""The wheel, installed away from the checkout, runs with the packaged configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

from safetydpo_kedro.config_loader import ExpertConfigLoader
from safetydpo_kedro.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[1]
CONFIGURATION = "conf-safetydpo_kedro.tar.gz"
# One pair of each concept, drawn in one step.
SMALL = (
    "dataset_generation.pair_split.train_per_concept=1,"
    "dataset_generation.pair_split.test_per_concept=1,"
    "dataset_generation.neutral_split.train_per_concept=1,"
    "dataset_generation.neutral_split.test_per_concept=1,"
    "dataset_generation.drawing.sampling.steps=1"
)
HEAVY = ("torch", "diffusers", "transformers", "pandas", "numpy", "plotly", "matplotlib", "mlflow")
# What `kedro package` does, without the plugins of Kedro's command line, which take longer.
PACKAGE = """
from pathlib import Path
from kedro.framework.cli.project import package
from kedro.framework.startup import bootstrap_project
package(obj=bootstrap_project(Path.cwd()), args=[])
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Folder of the wheel and of the configuration, made from a copy of the sources."""
    folder = tmp_path_factory.mktemp("checkout")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "conf/local").mkdir(exist_ok=True)
    (folder / "conf/local/credentials.yml").write_text("language_model: {api_key: secret}\n")
    run([sys.executable, "-c", PACKAGE], folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist) -> ZipFile:
    with ZipFile(next(dist.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


@pytest.fixture(scope="module")
def binaries(dist, tmp_path_factory) -> Path:
    """Commands of an environment with the wheel; its other packages are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    binaries = folder / ("Scripts" if sys.platform == "win32" else "bin")
    packages = subprocess.check_output(
        [binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        text=True,
    )
    # A path file in a folder that is itself named by a path file is not read: an editable
    # installation of the project stays out of sight.
    place = sysconfig.get_path("purelib")
    (Path(packages.strip()) / "dependencies.pth").write_text(f"{place}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), "install"]
    # What those path files show is installed already must not keep pip from installing it here.
    options = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    run([*pip, *options, str(next(dist.glob("*.whl")))], folder)
    return binaries


@pytest.fixture
def elsewhere(dist, tmp_path) -> Path:
    """A folder with the packaged configuration and nothing else."""
    shutil.copy(dist / CONFIGURATION, tmp_path)
    return tmp_path


def run(command: list, folder: Path, *, check: bool = True) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        pytest.fail(f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def imported(code: str) -> str:
    """List of the heavy packages that a fresh interpreter has imported after ``code``."""
    report = f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = run([sys.executable, "-c", report], ROOT)
    return done.stderr.strip().splitlines()[-1]


def test_the_wheel_holds_the_package_with_types_and_assets_and_nothing_else(wheel):
    sources = {
        f"{path.relative_to(ROOT / 'src').as_posix()}"
        for path in (ROOT / "src/safetydpo_kedro").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == sources
    assert {"safetydpo_kedro/py.typed", "safetydpo_kedro/pictograms/assets/NOTICE"} <= held


def test_the_configuration_comes_without_this_machines_credentials(dist):
    with tarfile.open(dist / CONFIGURATION) as archive:
        names = archive.getnames()
    assert {"conf/base/globals.yml", "conf/sdxl/catalog.yml", "conf/logging.yml"} <= set(names)
    assert not [name for name in names if "credentials" in name]


def test_metadata_name_the_licence_and_every_extra(metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(metadata.get_all("Provides-Extra"))
    assert extras == set(declared["optional-dependencies"])
    assert {"attacks", "dask", "dev", "docs", "gpu", "llm", "mlflow", "viz"} <= extras
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    optional = ("kedro-viz", "kedro-mlflow", "openai", "gguf", "bitsandbytes", "distributed")
    assert not [r for r in required if r.startswith(optional)]


def test_a_run_elsewhere_makes_the_data_set(binaries, elsewhere):
    shutil.copytree(ROOT / "data/01_raw", elsewhere / "data/01_raw")
    arguments = ["--conf-source", CONFIGURATION, "--pipelines", "dataset_generation"]
    arguments += ["--to-outputs", "pair_contact_sheet", "--params", SMALL]
    done = run([binaries / "python", "-m", "safetydpo_kedro", *arguments], elsewhere)
    assert "Pipeline execution completed" in done.stdout + done.stderr
    assert "usage data" not in done.stdout + done.stderr  # no telemetry without consent
    pairs = pd.read_parquet(elsewhere / "data/03_primary/prompt_pairs.parquet")
    assert pairs["category"].nunique() == 7
    made = elsewhere / "data/08_reporting/pair_contact_sheet.png"
    assert made.stat().st_size > 0


@pytest.mark.parametrize("env", ["base", "sd15", "sd21", "sdxl"])
def test_the_archive_states_what_the_folder_states(dist, env):
    archive, folder = (
        ExpertConfigLoader(str(source), env=env, **CONFIG_LOADER_ARGS)
        for source in (dist / CONFIGURATION, ROOT / "conf")
    )
    assert archive["parameters"] == folder["parameters"]
    assert archive["catalog"] == folder["catalog"]


def test_the_command_is_that_of_kedro(binaries, elsewhere):
    done = run([binaries / "safetydpo-kedro", "--help"], elsewhere)
    assert "--conf-source" in done.stdout


def test_help_imports_neither_settings_nor_plugins():
    code = (
        "from safetydpo_kedro.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'safetydpo_kedro.settings' not in sys.modules\n"
        "assert 'kedro_viz' not in sys.modules\n"
    )
    assert imported(code) == "[]"


def test_settings_and_registry_import_nothing_heavy():
    code = "import safetydpo_kedro.settings, safetydpo_kedro.pipeline_registry"
    assert imported(code) == "[]"
