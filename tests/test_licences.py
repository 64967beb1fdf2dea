"""What is shipped or depended on has a licence, and docs/explanation/licences.md names it."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/explanation/licences.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("gpu", "llm", "mlflow", "s3")  # what people install; `dev` is for work on the project
NOTICES = ("NOTICE", "LICENSE")
# How minified or borrowed sources keep the licence of their authors.
FOREIGN = re.compile(r"/\*!|@license|copyright|licensed under", re.IGNORECASE)


def names(requirements: list[str]) -> list[str]:
    return [Requirement(line).name for line in requirements]


def tracked_files() -> list[Path]:
    """Files of the repository, relative to its root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


def is_text(path: Path) -> bool:
    """Whether a tracked file is text, by git's own rule: no zero byte near its beginning."""
    with (ROOT / path).open("rb") as file:
        return b"\0" not in file.read(8000)


def stated_licences(package: str) -> list[str]:
    """All that a wheel's metadata says about its licence."""
    about = metadata.metadata(package)
    fields = [about.get("License-Expression"), about.get("License")]
    classifiers = [c for c in about.get_all("Classifier", []) if c.startswith("License ::")]
    stated = [field for field in (*fields, *classifiers) if field]
    return [text for text in stated if text.strip().upper() not in ("", "UNKNOWN")]


def is_named(path: Path) -> bool:
    """Whether the page names a file, or a folder that it lies in."""
    places = [path.as_posix(), *(f"{parent.as_posix()}/" for parent in path.parents)]
    return any(f"`{place}`" in PAGE for place in places)


@pytest.mark.parametrize("package", names(PROJECT["dependencies"]))
def test_every_dependency_states_a_licence_and_is_on_the_page(package):
    assert stated_licences(package), f"{package} states no licence in its metadata"
    assert re.search(rf"(?<![\w-]){re.escape(package)}(?![\w-])", PAGE)


@pytest.mark.parametrize("extra", EXTRAS)
def test_packages_of_extras_are_on_the_page(extra):
    for package in names(PROJECT["optional-dependencies"][extra]):
        assert re.search(rf"(?<![\w-]){re.escape(package)}(?![\w-])", PAGE), package


def test_the_package_says_the_licence_that_it_has():
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")[:200]


def test_images_weights_and_tables_in_the_repository_are_on_the_page():
    binaries = [path for path in tracked_files() if not is_text(path)]
    assert binaries
    missing = [path.as_posix() for path in binaries if not is_named(path)]
    assert not missing, f"name these in docs/explanation/licences.md: {missing}"


def test_assets_that_are_no_text_are_in_a_notice_beside_them():
    for path in tracked_files():
        if "assets" not in path.parts or is_text(path):
            continue
        notices = [ROOT / path.parent / name for name in NOTICES]
        texts = [n.read_text(encoding="utf-8") for n in notices if n.is_file()]
        assert any(path.name in text for text in texts), f"{path} is in no NOTICE beside it"


def test_assets_that_are_text_are_nobody_elses():
    for path in tracked_files():
        if "assets" not in path.parts or path.name in NOTICES or not is_text(path):
            continue
        found = FOREIGN.search((ROOT / path).read_text(encoding="utf-8"))
        assert not found, f"{path} says '{found and found.group()}': add a NOTICE, and the page"


def test_the_detector_still_contradicts_itself():
    """If this fails, nudenet has been relicensed: mend the page, the README and the model card."""
    distribution = metadata.distribution("nudenet")
    texts = [p.read_text() for p in distribution.files or [] if p.name.startswith("LICENSE")]
    assert any("AFFERO" in text for text in texts)
    assert "MIT" in " ".join(stated_licences("nudenet"))
