"""What every artifact of a pipeline should be made from, known before anything runs.

The expected fingerprint of a node's output is a hash of the node's function, the package version,
the values of its parameters and the fingerprints of its inputs: expected ones for what other
nodes of the pipeline make, recorded ones (from the manifest) for artifacts made by earlier runs,
content digests for everything else. Since a recorded fingerprint is the one that was expected
when the artifact was made, the result does not depend on how a pipeline is sliced.
"""

from __future__ import annotations

import uuid
from copy import copy
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from kedro.io import AbstractDataset, CatalogProtocol, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

import safetydpo_kedro
from safetydpo_kedro.artifacts import (
    Manifest,
    Provenance,
    content_digest,
    fingerprint,
    recorded_fingerprint,
    sidecar,
    staged,
    visible_files,
)
from safetydpo_kedro.storage import Location, location


class Tracker:
    """Takes over saving and the existence check of one data set instance.

    For data sets that keep one file or directory; the manifest lies beside it. Only the
    instance changes, so it keeps its class, and with it its previews in Kedro-Viz. It is pickled
    along with the instance: hooks around saving would not do, because workers that are spawned
    run none.

    Args:
        dataset: the data set.
        path: its file or directory.
        provenance: what the artifact should be made from.
    """

    def __init__(self, dataset: AbstractDataset, path: Location, provenance: Provenance) -> None:
        self._dataset = dataset
        self._path = path
        self._provenance = provenance

    def exists(self) -> bool:
        """Whether the artifact is there, whole, and made from what is expected."""
        return recorded_fingerprint(sidecar(self._path)) == self._provenance.fingerprint

    def save(self, data: Any) -> None:
        """Save elsewhere, move it into place, then write the manifest.

        A save that is cut short, or fails, leaves what was there before.
        """
        save = type(self._dataset).save
        if isinstance(self._path, Path):
            with staged(self._path) as temporary:
                save(at_another_path(self._dataset, temporary), data)
                sidecar(self._path).unlink(missing_ok=True)
        else:  # objects appear on storage as a whole
            sidecar(self._path).unlink(missing_ok=True)
            save(self._dataset, data)
        files = visible_files(self._path)
        Manifest.of(self._provenance, files, self._path.parent).write(sidecar(self._path))


def at_another_path(dataset: AbstractDataset, path: Path) -> AbstractDataset:
    """The same data set, with ``path`` for its file or directory."""
    other = copy(dataset)
    if "_filepath" in vars(dataset):
        other._filepath = type(dataset._filepath)(path)
    else:  # it wraps the data set that has one
        other._dataset = at_another_path(dataset._dataset, path)
    return other


def track(dataset: AbstractDataset | None, provenance: Provenance) -> None:
    """Let ``dataset`` exist only if it is made from what ``provenance`` states.

    Data sets in memory, on web servers, or with Kedro's versioning stay as they are.
    """
    if hasattr(dataset, "expect"):
        dataset.expect(provenance)
    elif (path := artifact_path(dataset)) is not None:
        tracker = Tracker(dataset, path, provenance)
        dataset.save, dataset._exists = tracker.save, tracker.exists


def make_picklable(dataset: AbstractDataset | None) -> None:
    """Let workers in other processes have a data set of Kedro's on remote storage.

    It keeps two methods of its file system to look for versions, and those of S3 cannot be
    pickled. One without versions never calls them.
    """
    path = artifact_path(dataset)
    if path is not None and not isinstance(path, Path) and hasattr(dataset, "_glob_function"):
        dataset._glob_function = dataset._exists_function = None


def artifact_path(dataset: AbstractDataset | None) -> Location | None:
    """File or directory of a data set, ``None`` if it has none, or one on a web server."""
    path = getattr(dataset, "_filepath", None)
    protocol = getattr(dataset, "_protocol", "file") or "file"
    if path is None or protocol.startswith("http") or getattr(dataset, "_version", None):
        return None
    if protocol != "file":
        return location(f"{protocol}://{path}", getattr(dataset._fs, "storage_options", None))
    return Path(path) if isinstance(path, PurePath) else location(path)


def manifest_path(dataset: AbstractDataset | None) -> Location | None:
    """Where the manifest of a data set lies, or will lie; ``None`` for untracked ones."""
    if hasattr(dataset, "manifest_path"):
        return dataset.manifest_path
    path = artifact_path(dataset)
    return None if path is None else sidecar(path)


def expected_provenances(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, Provenance]:
    """Provenance of every output of every node of ``pipeline``, without running anything."""
    known: dict[str, Provenance] = {}
    free: dict[str, str] = {}
    options_of: dict[str, Any] = {}  # asked for once: they may hash whole models
    for node in pipeline.nodes:
        parameters: dict[str, Any] = {}
        contents: dict[str, Any] = {}
        inputs: dict[str, str] = {}
        for name in node.inputs:
            if is_parameter(name):
                parameters[name] = catalog.load(name)
                contents[name] = parameter_identity(parameters[name])
                continue
            base = name.partition("@")[0]
            if base not in known and base not in free:
                free[base] = free_input_fingerprint(catalog.get(name))
            digest = known[base].fingerprint if base in known else free[base]
            if base not in options_of:
                options_of[base] = getattr(catalog.get(name), "fingerprint_options", None)
            options = options_of[base]
            inputs[name] = fingerprint([digest, options]) if options else digest
        identity = {
            "function": function_identity(node.func),
            "version": safetydpo_kedro.__version__,
            "arguments": [
                (argument, contents[name] if name in contents else inputs[name])
                for argument, name in arguments(node)
            ],
        }
        code = [identity["function"], identity["version"]]
        given = dict(identity["arguments"])
        for position, name in enumerate(node.outputs):
            digest = fingerprint({**identity, "output": position})
            provenance = Provenance(digest, node.name, parameters, inputs, given, [*code, position])
            known[name.partition("@")[0]] = provenance
    return known


def is_parameter(name: str) -> bool:
    """Whether Kedro takes the data set of this name from the parameters."""
    return name == "parameters" or name.startswith("params:")


def parameter_identity(value: Any) -> Any:
    """What a parameter stands for: its value and, where it names files, their content too.

    A typed model that names files has a property ``files``.
    """
    files = getattr(value, "files", ())
    return [value, [content_digest(path) for path in files]] if files else value


def arguments(node: Node) -> list[tuple[str | int, str]]:
    """Argument name or position of the node's function, and the data set it gets."""
    bound = node._inputs
    if isinstance(bound, dict):
        return sorted(bound.items())
    return list(enumerate(node.inputs))


def function_identity(function: Any) -> Any:
    """Qualified name of a function; for a partial one, with what is bound to it."""
    if isinstance(function, partial):
        return [function_identity(function.func), function.args, function.keywords]
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"


def free_input_fingerprint(dataset: AbstractDataset | None) -> str:
    """Fingerprint of something that no node of the pipeline makes.

    The manifest's, if the artifact is as its manifest states; otherwise a digest of the content.
    An object in memory that is not JSON-like cannot be named: it counts as new in every run.
    """
    manifest = manifest_path(dataset)
    recorded = manifest and recorded_fingerprint(manifest)
    if recorded:
        return recorded
    path = artifact_path(dataset) or (manifest and manifest.parent)
    if path is not None:
        return content_digest(path) or "missing"
    if getattr(dataset, "_EPHEMERAL", False):
        return _memory_fingerprint(dataset)
    # A model on a hub, say: its options name it, and leave out what changes no result.
    options = getattr(dataset, "fingerprint_options", None)
    return fingerprint([type(dataset).__qualname__, options] if options else repr(dataset))


def _memory_fingerprint(dataset: AbstractDataset) -> str:
    try:
        data = dataset.load()
    except DatasetError:
        return "missing"
    is_plain = isinstance(data, str | int | float | bool | list | dict) or data is None
    return fingerprint(data) if is_plain else uuid.uuid4().hex
