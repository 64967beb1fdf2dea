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
from safetydpo_kedro.storage import (
    Location,
    State,
    files_below,
    read_text,
    state_of,
    states_of,
    upload,
)
from safetydpo_kedro.write_errors import explained

RECORDED_PACKAGES = ("torch", "diffusers", "transformers", "peft", "kedro")


@contextmanager
def write_atomically(path: Location) -> Iterator[Path]:
    """Yield a temporary local file; it becomes ``path`` when the block ends well.

    A reader sees the old file or the new one, never a part. If the block raises, the temporary
    file is removed and ``path`` stays as it was.

    Raises:
        CannotWriteError: the disk is full, or must not be written to.
    """
    with explained(path):
        if not isinstance(path, Path):
            with _uploading(path) as temporary:
                yield temporary
            return
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


@contextmanager
def _uploading(path: Location) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        yield temporary
        digest = file_digest(temporary)
        upload(temporary, path)
        if state := state_of(path):
            _uploaded[str(path), state] = digest


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Like :func:`write_atomically` for a local file or folder; the temporary has the same name.

    A folder that is replaced is away for a moment between the old one and the new one.

    Raises:
        CannotWriteError: the disk is full, or must not be written to.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            if path.is_dir():
                os.replace(path, Path(folder) / f"{path.name}.old")
            os.replace(temporary, path)


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


# What this process has uploaded need not be downloaded to be hashed.
_uploaded: dict[tuple[str, State], str] = {}


def file_digest(path: Location) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    if not isinstance(path, Path) and (state := state_of(path)):
        return _digest_at(path, state)
    return _hash(path)


def _hash(path: Location) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_digest(path: Location) -> str:
    """SHA-256 over names and contents of all files below a directory, hidden files left out."""
    files = visible_files(path)
    return fingerprint([(p.relative_to(path).as_posix(), file_digest(p)) for p in files])


def visible_files(path: Location) -> list[Location]:
    """All files of an artifact, sorted: the file itself, or those below a directory.

    Hidden files (``.gitkeep``, temporaries of :func:`write_atomically`) are left out.
    """
    if path.is_file():
        return [path]
    return [file for file in files_below(path) if not file.name.startswith(".")]


def content_digest(path: Location) -> str | None:
    """Digest of a file or directory, ``None`` if there is nothing at ``path``."""
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
            fingerprint of its own, and ``version`` where it is an object on remote storage.
        versions: package → version at the time of writing.
    """

    provenance: Provenance
    files: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str] = field(default_factory=package_versions)

    @classmethod
    def of(
        cls,
        provenance: Provenance,
        files: Iterable[Location],
        folder: Location,
        identities: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Describe ``files``, which lie below ``folder``; ``identities`` by file name."""
        records: dict[str, dict[str, Any]] = {}
        files = list(files)
        for path, state in zip(files, states_of(files), strict=True):
            if state is None:
                raise FileNotFoundError(f"{path} has just been written, and is not there")
            if isinstance(path, Path):
                record = {"sha256": file_digest(path), "bytes": state.size}
            else:
                digest = _digest_at(path, state)
                record = {"sha256": digest, "bytes": state.size, "version": state.version}
            records[path.relative_to(folder).as_posix()] = record
        for name, identity in (identities or {}).items():
            records[name]["identity"] = identity
        return cls(provenance, records)

    @classmethod
    def read(cls, path: Location) -> Manifest | None:
        """Read a manifest; ``None`` if there is none, or none that can be read.

        One that names a file outside of its folder, which might be removed with the artifact,
        cannot be read either.
        """
        try:
            content = json.loads(read_text(path))
            texts = (content["fingerprint"], content["node"])
            mappings = (content["parameters"], content["inputs"], content["versions"])
            files = content["files"]
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        is_sound = (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(mapping, dict) for mapping in (*mappings, files))
            and all(_is_record(name, record) for name, record in files.items())
        )
        return cls(Provenance(*texts, *mappings[:2]), files, mappings[2]) if is_sound else None

    def write(self, path: Location) -> None:
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


def _is_record(name: str, record: Any) -> bool:
    """Whether an entry of a manifest is a file below its folder, with size and hash."""
    is_inside = not name.startswith("/") and not {"", ".", ".."} & set(name.split("/"))
    if not is_inside or not name.isprintable() or not isinstance(record, dict):
        return False
    has_hash = isinstance(record.get("sha256"), str) and type(record.get("bytes")) is int
    return has_hash and isinstance(record.get("identity", ""), str)


def intact_files(manifest_path: Location) -> tuple[list[str], list[str]]:
    """Names of the files that are as their manifest states, and of those that are not.

    A file of the stated size is trusted if it is not newer than the manifest, an object on remote
    storage if it is of the stated version; any other is hashed.
    """
    manifest = Manifest.read(manifest_path)
    return ([], []) if manifest is None else _compare(manifest, manifest_path)


def _compare(manifest: Manifest, manifest_path: Location) -> tuple[list[str], list[str]]:
    intact: list[str] = []
    broken: list[str] = []
    written = manifest_path.stat().st_mtime_ns if isinstance(manifest_path, Path) else 0
    paths = [manifest_path.parent / name for name in manifest.files]
    for path, state, name in zip(paths, states_of(paths), manifest.files, strict=True):
        record = manifest.files[name]
        same = state is not None and state.size == record["bytes"]
        if same and not _is_as_written(path, state, record, written):
            same = _digest_at(path, state) == record["sha256"]
        (intact if same else broken).append(name)
    return intact, broken


def _is_as_written(path: Location, state: State, record: Mapping[str, Any], written: int) -> bool:
    if isinstance(path, Path):
        return state.version <= written
    return state.version == record.get("version")


@lru_cache(maxsize=4096)
def _digest_at(path: Location, state: State) -> str:
    """Digest of a file in a certain state, so that one process hashes it once."""
    if known := _uploaded.get((str(path), state)):
        return known
    return _hash(path)


def recorded_fingerprint(manifest_path: Location) -> str | None:
    """Fingerprint of the artifact that is there, ``None`` if none is, or not as it was written."""
    manifest = Manifest.read(manifest_path)
    if manifest is None or not manifest.provenance.fingerprint:
        return None
    return None if _compare(manifest, manifest_path)[1] else manifest.provenance.fingerprint


def sidecar(path: Location) -> Location:
    """Where the manifest of a file or directory lies: beside it, ``<name>.manifest.json``."""
    return path.with_name(f"{path.name}.manifest.json")
