"""Atomic files, content hashes, fingerprints, manifests: what makes an artifact trustworthy.

A *fingerprint* names what an artifact is made from: function, parameters, inputs. A *manifest* is
the JSON file that states the fingerprint of the artifact that is really there, together with the
content hash of each of its files. An artifact is fresh if both agree with what is expected.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import safetydpo_kedro

RECORDED_PACKAGES = ("torch", "diffusers", "transformers", "peft", "kedro")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there when the block ends well.

    A reader sees the old file or the new one, never a part. If the block raises, the temporary
    file is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """JSON form of a value that JSON does not know: models, dataclasses, paths, sets, arrays."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def fingerprint(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON-like value; equal values give equal fingerprints."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_digest(path: Path) -> str:
    """SHA-256 over names and contents of all files below a directory, hidden files left out."""
    files = visible_files(path)
    return fingerprint([(p.relative_to(path).as_posix(), file_digest(p)) for p in files])


def visible_files(path: Path) -> list[Path]:
    """All files of an artifact, sorted: the file itself, or those below a directory.

    Hidden files (``.gitkeep``, temporaries of :func:`write_atomically`) are left out.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))


def content_digest(path: Path) -> str | None:
    """Digest of a file or directory, ``None`` if there is nothing at ``path``."""
    path = Path(path)
    if path.is_file():
        return file_digest(path)
    return directory_digest(path) if path.is_dir() else None


def package_versions() -> dict[str, str]:
    """Versions of this package and of those that decide what an artifact holds."""
    versions = {"safetydpo_kedro": safetydpo_kedro.__version__}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True)
class Provenance:
    """What an artifact is made from.

    Attributes:
        fingerprint: SHA-256 over function, package version, parameters and inputs.
        node: name of the node that makes it.
        parameters: parameter name → value, as the node gets them.
        inputs: data set name → fingerprint of that input.
        arguments: argument of the node's function → the value of the parameter, or the
            fingerprint of the input, that it gets; not kept in manifests.
        code: function and package version, likewise.
    """

    fingerprint: str
    node: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str | int, Any] = field(default_factory=dict)
    code: Any = None

    def without(self, arguments: Collection[str], key: str) -> str:
        """Fingerprint of a part that depends on some arguments only through ``key``.

        Empty if it is not known what the whole is made from.
        """
        if not self.fingerprint:
            return ""
        others = sorted(
            (str(name), value) for name, value in self.arguments.items() if name not in arguments
        )
        return fingerprint([self.code, others, key])


@dataclass(frozen=True)
class Manifest:
    """Statement of what an artifact is and which files it consists of.

    Attributes:
        provenance: what it was made from; an empty fingerprint if that was not known.
        files: path relative to the manifest's folder → ``{"sha256": …, "bytes": …}``, in the
            order in which the files are to be read; with ``identity`` where a file has a
            fingerprint of its own.
        versions: package → version at the time of writing.
    """

    provenance: Provenance
    files: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str] = field(default_factory=package_versions)

    @classmethod
    def of(
        cls,
        provenance: Provenance,
        files: Iterable[Path],
        folder: Path,
        identities: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Describe ``files``, which lie below ``folder``; ``identities`` by file name."""
        records: dict[str, dict[str, Any]] = {
            path.relative_to(folder).as_posix(): {
                "sha256": file_digest(path),
                "bytes": path.stat().st_size,
            }
            for path in files
        }
        for name, identity in (identities or {}).items():
            records[name]["identity"] = identity
        return cls(provenance, records)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Read a manifest; ``None`` if there is none, or none that can be read."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            provenance = Provenance(
                content["fingerprint"], content["node"], content["parameters"], content["inputs"]
            )
            return cls(provenance, content["files"], content["versions"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write the manifest atomically."""
        content = {
            "fingerprint": self.provenance.fingerprint,
            "node": self.provenance.node,
            "parameters": self.provenance.parameters,
            "inputs": self.provenance.inputs,
            "versions": self.versions,
            "files": self.files,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, default=plain)
        with write_atomically(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def intact_files(manifest_path: Path) -> tuple[list[str], list[str]]:
    """Names of the files that are as their manifest states, and of those that are not.

    A file of the stated size that is not newer than the manifest is trusted; any other is hashed.
    """
    manifest_path = Path(manifest_path)
    manifest = Manifest.read(manifest_path)
    intact: list[str] = []
    broken: list[str] = []
    if manifest is None:
        return intact, broken
    written = manifest_path.stat().st_mtime_ns
    for name, record in manifest.files.items():
        path = manifest_path.parent / name
        same = path.is_file() and path.stat().st_size == record["bytes"]
        if same and (changed := path.stat().st_mtime_ns) > written:
            same = _digest_at(path, changed) == record["sha256"]
        (intact if same else broken).append(name)
    return intact, broken


@lru_cache
def _digest_at(path: Path, modified: int) -> str:
    """Digest of a file as of a modification time, so that one run hashes it once."""
    return file_digest(path)


def recorded_fingerprint(manifest_path: Path) -> str | None:
    """Fingerprint of the artifact that is there, ``None`` if none is, or not as it was written."""
    manifest = Manifest.read(manifest_path)
    if manifest is None or not manifest.provenance.fingerprint or intact_files(manifest_path)[1]:
        return None
    return manifest.provenance.fingerprint


def sidecar(path: Path) -> Path:
    """Where the manifest of a file or directory lies: beside it, ``<name>.manifest.json``."""
    return Path(path).with_name(f"{Path(path).name}.manifest.json")
