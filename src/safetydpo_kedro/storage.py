"""Places of artifacts: files on the local disk, or objects on storage that fsspec speaks to.

A place is a :class:`pathlib.Path`, or a :class:`upath.UPath` for an address such as
``s3://bucket/key``. What both can do, callers do without asking which one it is. The rest is here:
a local copy of what has to be a real file, and the state by which a change is noticed.

Other processes write to the same storage meanwhile, so no listing of it is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

from pydantic import BeforeValidator

if TYPE_CHECKING:
    from upath import UPath

Location: TypeAlias = "Path | UPath"

LOCAL_PROTOCOLS = ("file", "local")
OPEN_ARGS = ("open_args_load", "open_args_save")  # of Kedro's `fs_args`, for other data sets


class State(NamedTuple):
    """By which a change of a file is noticed.

    Attributes:
        size: in bytes.
        version: of a local file the modification time in nanoseconds, of an object its ETag,
            because times of objects may be no finer than a second.
    """

    size: int
    version: int | str


def is_remote_address(path: Any) -> bool:
    """Whether a path in a configuration file is not on the local disk.

    Example:
        >>> [is_remote_address(path) for path in ("data/06_models", "s3://bucket/key")]
        [False, True]
    """
    from fsspec.utils import get_protocol

    return get_protocol(str(path)) not in LOCAL_PROTOCOLS


def location(
    path: str | Location,
    credentials: Mapping[str, Any] | None = None,
    fs_args: Mapping[str, Any] | None = None,
) -> Location:
    """The place that a path in the catalog names.

    Args:
        path: of a file or folder, or an address such as ``s3://bucket/key``.
        credentials: of the storage, as its fsspec file system takes them; without them it looks
            into its own configuration files.
        fs_args: further arguments of the file system.

    Raises:
        ValueError: there is no such kind of storage, or the package that speaks to it is missing.
    """
    if not isinstance(path, str):
        return path
    if not is_remote_address(path):
        if "://" in path:
            from fsspec.implementations.local import LocalFileSystem

            path = LocalFileSystem._strip_protocol(path)
        return Path(path)
    import fsspec
    from upath import UPath

    kind = path.partition("://")[0]
    try:
        fsspec.get_filesystem_class(kind)
    except (ImportError, ValueError) as error:
        extra = ": pip install 'safetydpo_kedro[s3]'" if kind == "s3" else ""
        raise ValueError(f"cannot use {path}: {error}{extra}") from error
    options = {name: value for name, value in (fs_args or {}).items() if name not in OPEN_ARGS}
    return UPath(path, **{"use_listings_cache": False, **options, **(credentials or {})})


def state_of(path: Location) -> State | None:
    """State of a file, ``None`` if there is none."""
    if isinstance(path, Path):
        if not path.is_file():
            return None
        status = path.stat()
        return State(status.st_size, status.st_mtime_ns)
    try:
        return _state(path.fs.info(path.path))
    except FileNotFoundError:
        return None


def states_of(paths: Sequence[Location]) -> list[State | None]:
    """States of many files; those of remote ones by one listing of each folder."""
    if len(paths) < 2 or isinstance(paths[0], Path):
        return [state_of(path) for path in paths]
    found = {}
    for folder in dict.fromkeys(path.parent for path in paths):
        found |= {file.path: state for file, state in _listed(folder, depth=1)}
    return [found.get(path.path) for path in paths]


def files_below(path: Location) -> list[Location]:
    """All files below a folder, sorted by the parts of their names; none if there is no folder."""
    if isinstance(path, Path):
        files: Iterable[Location] = (file for file in path.rglob("*") if file.is_file())
    else:
        files = (file for file, _ in _listed(path))
    return sorted(files, key=lambda file: file.parts)


def read_text(path: Location) -> str:
    """Text of a small UTF-8 file, from storage by one request.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(path, Path):
        return path.read_text(encoding="utf-8")
    return path.fs.cat_file(path.path).decode()


def local_copy(path: Location) -> Path:
    """A local file or folder with the content of ``path``, for readers that need a real one.

    A local path is returned as it is. What is remote is downloaded once per process and version,
    into a folder for temporary files that goes when the process ends; the name stays.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
    """
    if isinstance(path, Path):
        return path
    state = state_of(path)
    found = [(path, state)] if state else _listed(path)
    if not found:
        raise FileNotFoundError(f"nothing at {path}")
    content = [str(path), sorted((str(file), *state) for file, state in found)]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    folder = _downloads() / key
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_downloads()) as staging:
            for file, _ in found:
                target = Path(staging, "whole", path.name, *file.parts[len(path.parts) :])
                target.parent.mkdir(parents=True, exist_ok=True)
                file.fs.get_file(file.path, str(target))
            _move(Path(staging, "whole"), folder)
    return folder / path.name


def upload(file: Path, path: Location) -> None:
    """Put a local file to a remote place, where it appears when it is there as a whole."""
    path.fs.put_file(str(file), path.path)


def replace_folder(folder: Path, path: Location, last: str) -> None:
    """Let ``path`` hold what a local folder holds, and nothing else.

    A local folder is moved there in one step. On storage the file ``last`` is removed first and
    uploaded last, so that a folder without it is known not to be whole.

    Args:
        folder: that was made beside ``path`` if ``path`` is local.
        path: where it should be.
        last: name of a file at the top of the folder.
    """
    if isinstance(path, Path):
        if path.exists():
            os.replace(path, folder.parent / "replaced")
        os.replace(folder, path)
        return
    (path / last).unlink(missing_ok=True)
    names = [file.relative_to(folder) for file in files_below(folder)]
    for old in files_below(path):
        if Path(*old.parts[len(path.parts) :]) not in names:
            old.unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == Path(last)):
        upload(folder / name, path.joinpath(*name.parts))


def staging_folder(path: Location) -> tempfile.TemporaryDirectory[str]:
    """A folder for what :func:`replace_folder` will put to ``path``."""
    if isinstance(path, Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    return tempfile.TemporaryDirectory()


def check_access(paths: Iterable[Location | None]) -> None:
    """Ask each remote storage for a file, so that one out of reach is noticed before the work.

    Args:
        paths: of files that may be there; one of each bucket is asked for.

    Raises:
        ValueError: the storage does not answer, or refuses, or there is no such bucket.
    """
    remote = [path for path in paths if path is not None and not isinstance(path, Path)]
    for path in {(path.protocol, path.parts[:1]): path for path in remote}.values():
        _check_access(path)


def _check_access(path: UPath) -> None:
    try:
        read_text(path)
    except FileNotFoundError as error:
        if "bucket" in str(error):
            raise ValueError(f"cannot write to {path}: {error}; create the bucket first") from error
    except Exception as error:  # every kind of storage has its own
        raise ValueError(
            f"cannot reach {path}: {error}; see docs/how_to/use_shared_storage.md for addresses "
            f"and credentials"
        ) from error


def _refuse_remote(path: Any) -> Any:
    if is_remote_address(path):
        raise ValueError(
            f"{path} is on remote storage, and what lies here needs a local disk or a shared file "
            f"system; name a folder on one as `scratch` in globals.yml, beside `artifacts`"
        )
    return path


LocalPath = Annotated[Path, BeforeValidator(_refuse_remote)]
"""Type of a parameter that names a local file or folder."""


def _listed(path: UPath, depth: int | None = None) -> list[tuple[UPath, State]]:
    """Objects below a remote folder, down to a depth, with their states."""
    try:
        found = path.fs.find(path.path, maxdepth=depth, detail=True)
    except FileNotFoundError:
        return []
    prefix = path.path.rstrip("/") + "/"
    states = {name: _state(info) for name, info in found.items() if name.startswith(prefix)}
    return [
        (path.joinpath(*name.removeprefix(prefix).split("/")), state)
        for name, state in states.items()
        if state
    ]


def _state(info: Mapping[str, Any]) -> State | None:
    """From what fsspec says of an object; ``None`` for a folder."""
    if info["type"] != "file":
        return None
    keys = ("ETag", "etag", "created", "mtime", "LastModified", "last_modified")
    version = next((info[key] for key in keys if info.get(key)), "")
    return State(info["size"], str(version))


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="safetydpo_kedro-")


def _downloads() -> Path:
    """Where downloads of this process lie; a forked one shares those of its parent."""
    return Path(_temporary_folder().name)


def _move(folder: Path, target: Path) -> None:
    try:
        os.replace(folder, target)
    except OSError:
        if not target.is_dir():  # otherwise another thread or process was first
            raise
        shutil.rmtree(folder)
