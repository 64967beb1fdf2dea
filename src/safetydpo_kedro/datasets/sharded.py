"""Artifacts in many files, each computed, written and resumed on its own."""

from __future__ import annotations

import json
import logging
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from kedro.io import AbstractDataset, DatasetError

from safetydpo_kedro.artifacts import (
    Manifest,
    Provenance,
    intact_files,
    recorded_fingerprint,
    write_atomically,
)
from safetydpo_kedro.progress import progress_bar, progress_of
from safetydpo_kedro.storage import Location, location, read_text

logger = logging.getLogger(__name__)

Shard = TypeVar("Shard")
ShardPlan = Mapping[str, Callable[[], Shard] | Shard]


@dataclass(frozen=True)
class KeyedPlan(Mapping[str, Any]):
    """A plan whose shards outlive a change of inputs that does not concern them.

    A shard depends on some arguments of the node only through a few of their rows, say. Its key
    stands for these rows; if the key and all other arguments are as they were, so is the shard.
    Such a plan may be empty. Shards that it does not name stay on disk, and ``_kept.json`` names
    them: they are read again once a plan asks for them.

    Attributes:
        shards: shard name → function without arguments that computes it.
        key_of: shard name → fingerprint of what it takes from the arguments in ``covered``.
        covered: names of these arguments.
        rows: shard name → how many rows it will have, for progress bars.
    """

    shards: Mapping[str, Callable[[], Any]]
    key_of: Mapping[str, str]
    covered: tuple[str, ...]
    rows: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Callable[[], Any]:
        return self.shards[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shards)

    def __len__(self) -> int:
        return len(self.shards)


MANIFEST = "_manifest.json"
KEPT = "_kept.json"
IN_PROGRESS = "_in_progress.json"
SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def plan_shards(
    rows: int, size: int, make: Callable[[slice], Shard]
) -> dict[str, Callable[[], Shard]]:
    """A plan of shards over numbered rows.

    Args:
        rows: how many there are.
        size: rows of a shard.
        make: computes the shard of some rows.
    """
    return {
        f"shard-{start // size:05d}": partial(make, slice(start, start + size))
        for start in range(0, rows, size)
    }


class ShardedDataset(AbstractDataset[ShardPlan[Shard], Shard], Generic[Shard]):
    """A folder of shards that exists only once it is complete and made from what is expected.

    A node returns a *plan*: shard name → function without arguments that computes the shard (or
    the shard itself). ``save`` computes and writes the shards that are not there yet, in the
    plan's order, each atomically. ``load`` returns all of them, concatenated in that order.

    Three files in the folder keep the books. ``_in_progress.json`` is written first and names the
    fingerprints of the shards being made, so that a later run knows whether it may go on with
    them. ``_manifest.json`` is written last; the artifact exists only with it. ``_kept.json``
    names the shards beside those of a :class:`KeyedPlan`. Shards are used again only if their
    fingerprint is known and is the expected one (see ``expect``, which a hook calls before the
    run); all others are stale and removed. The fingerprint of a shard is that of the whole
    artifact, unless the plan is a :class:`KeyedPlan`.

    Args:
        path: the folder.
        credentials: of storage such as S3, as Kedro hands them in; see
            :func:`safetydpo_kedro.storage.location`.
        fs_args: further arguments of its file system.
        metadata: for other tools, such as Kedro-Viz; not read here.
    """

    suffix: str

    def __init__(
        self,
        *,
        path: str,
        credentials: dict[str, Any] | None = None,
        fs_args: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._path = location(path, credentials, fs_args)
        self._expected: Provenance | None = None
        self._share: tuple[int, int] | None = None
        self.metadata = metadata

    @abstractmethod
    def _write(self, shard: Shard, path: Path) -> None:
        """Write one shard to ``path``."""

    @abstractmethod
    def _read(self, paths: list[Location]) -> Shard:
        """Read and concatenate the shards at ``paths``; only a :class:`KeyedPlan` may have none."""

    @property
    def manifest_path(self) -> Location:
        """The manifest, which lies inside the folder."""
        return self._path / MANIFEST

    def expect(self, provenance: Provenance) -> None:
        """State what the shards should be made from; any others count as missing."""
        self._expected = provenance

    def share(self, number: int, count: int) -> Self:
        """The same folder for one of several processes that fill it together.

        ``save`` then computes every ``count``-th shard of the plan only. Who finds all shards
        there completes the artifact. If nobody does, because two processes began at the same
        moment and one removed stale shards late, a ``save`` of the whole plan does the rest.

        Args:
            number: of this share, 0 to ``count`` - 1.
            count: how many shares there are.
        """
        part = copy(self)
        part._share = (number, count)
        return part

    def load(self) -> Shard:
        """Read all shards.

        Raises:
            DatasetError: the folder is missing or incomplete.
        """
        return self._read(self.shard_paths())

    def shard_paths(self) -> list[Location]:
        """Files of all shards, in order.

        Raises:
            DatasetError: the folder is missing, or a shard of it is, or was damaged since.
        """
        manifest = Manifest.read(self.manifest_path)
        if manifest is None:
            state = "incomplete" if (self._path / IN_PROGRESS).is_file() else "not there"
            raise DatasetError(f"{self._path} is {state}: run the node that makes it")
        broken = intact_files(self.manifest_path)[1]
        if broken:
            raise DatasetError(
                f"{self._path} lacks {len(broken)} of its {len(manifest.files)} shards, or they "
                f"are not as they were written, the first is '{broken[0]}': run the node that "
                f"makes it, which makes these again"
            )
        return [self._path / name for name in manifest.files]

    def save(self, data: ShardPlan[Shard]) -> None:
        """Compute and write the shards of a plan that are not there yet.

        Raises:
            ValueError: the plan is empty or a shard's name cannot be a file name.
        """
        if self._share and self.exists():
            return  # the others have done it all
        targets = self._targets(data)
        identities = self._identities(data, targets)
        self._start(identities, keep_others=isinstance(data, KeyedPlan))
        done = self._present() & set(targets.values())
        if done:
            logger.info("%s: %d of %d shards are there", self._path.name, len(done), len(targets))
        own = self._own(targets)
        missing = {name: path for name, path in own.items() if path not in done}
        with self._progress(data, own.keys(), own.keys() - missing.keys()) as advance:
            for name, path in missing.items():
                started = time.monotonic()
                entry = data[name]
                shard = entry() if callable(entry) else entry
                with write_atomically(path) as temporary:
                    self._write(shard, temporary)
                advance(name, time.monotonic() - started)
        if not self._share or self._present().issuperset(targets.values()):
            self._finish(list(targets.values()), identities)

    def _own(self, targets: Mapping[str, Location]) -> dict[str, Location]:
        """The shards that this process computes."""
        number, count = self._share or (0, 1)
        return dict(list(targets.items())[number::count])

    @contextmanager
    def _progress(
        self, plan: ShardPlan[Shard], names: Set[str], done: Set[str]
    ) -> Iterator[Callable[[str, float], Any]]:
        """What to tell that a shard is done, and its seconds: a bar of all nodes, or an own one."""
        shared = progress_of(str(self._path))
        if shared is not None and isinstance(plan, KeyedPlan):
            rows, task = plan.rows, str(self._path)
            shared.begin(task, sum(rows[n] for n in names), sum(rows[n] for n in done))
            yield lambda name, seconds: shared.advance(task, rows[name], seconds)
            return
        counts = {"total": len(names), "initial": len(done)}
        with progress_bar(desc=self._path.name, unit="shard", **counts) as shown:
            yield lambda name, seconds: shown.update()

    def _targets(self, plan: ShardPlan[Shard]) -> dict[str, Location]:
        """File of each shard of the plan."""
        if not plan and not isinstance(plan, KeyedPlan):
            raise ValueError(f"the plan for {self._path} has no shards; at least one is needed")
        for name in plan:
            if not SHARD_NAME.fullmatch(name):
                raise ValueError(
                    f"shard name {name!r} for {self._path} must consist of letters, digits, "
                    f"'_', '-' and '.', and start with a letter or digit"
                )
        return {name: self._path / f"{name}{self.suffix}" for name in plan}

    def _identities(
        self, plan: ShardPlan[Shard], targets: Mapping[str, Location]
    ) -> dict[str, str]:
        """File name → fingerprint that the shard should have; empty if that is not known."""
        provenance = self._expected or Provenance("")
        if isinstance(plan, KeyedPlan):
            return {
                path.name: provenance.without(plan.covered, plan.key_of[name])
                for name, path in targets.items()
            }
        return {path.name: provenance.fingerprint for path in targets.values()}

    def _start(self, identities: Mapping[str, str], keep_others: bool) -> None:
        """Remove what must not be used again, and mark the folder as in progress."""
        recorded = self._identities_on_disk()
        present = self._present()
        if present and recorded is None:
            raise DatasetError(
                f"{self._path} holds {len(present)} {self.suffix} files that were not written "
                f"as shards, or whose {MANIFEST} is damaged; move them away, or name another "
                f"folder in the catalog"
            )
        known = {name: identity for name, identity in (recorded or {}).items() if identity}
        same = {name for name, identity in identities.items() if known.get(name) == identity}
        kept = {n: i for n, i in known.items() if keep_others and n not in identities}
        if stale := present - {self._path / name for name in (*same, *kept)}:
            logger.info("%s: %d stale shards removed", self._path.name, len(stale))
        for path in stale:
            path.unlink(missing_ok=True)  # another process may have a share of the same plan
        for name in intact_files(self.manifest_path)[1]:
            (self._path / name).unlink(missing_ok=True)
        with write_atomically(self._path / IN_PROGRESS) as temporary:
            temporary.write_text(json.dumps({"shards": {**kept, **identities}}) + "\n")
        self._keep({name: i for name, i in kept.items() if (self._path / name).is_file()})
        self.manifest_path.unlink(missing_ok=True)

    def _keep(self, shards: Mapping[str, str]) -> None:
        """Note which shards are here beside those of the plan."""
        if not shards:
            (self._path / KEPT).unlink(missing_ok=True)
            return
        with write_atomically(self._path / KEPT) as temporary:
            temporary.write_text(json.dumps(shards) + "\n")

    def _finish(self, paths: list[Location], identities: Mapping[str, str]) -> None:
        """Write the manifest, which makes the artifact exist."""
        provenance = self._expected or Provenance("")
        manifest = Manifest.of(provenance, paths, self._path, identities)
        manifest.write(self.manifest_path)
        (self._path / IN_PROGRESS).unlink(missing_ok=True)

    def _identities_on_disk(self) -> dict[str, str] | None:
        """File name → fingerprint of the shards being made or complete, ``None`` if unknown."""
        manifest = Manifest.read(self.manifest_path)
        if manifest is not None:
            whole = manifest.provenance.fingerprint
            listed = {n: record.get("identity", whole) for n, record in manifest.files.items()}
            return {**self._book(KEPT), **listed}
        shards = self._book(IN_PROGRESS).get("shards")
        return shards if isinstance(shards, dict) else None

    def _book(self, name: str) -> dict[str, Any]:
        """Content of one of the files that keep the books; empty if it is not there, or broken."""
        try:
            content = json.loads(read_text(self._path / name))
        except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}

    def _present(self) -> set[Location]:
        """Shard files that are there."""
        return {p for p in self._path.glob(f"*{self.suffix}") if not p.name.startswith(".")}

    def _exists(self) -> bool:
        if self._expected is not None:
            return recorded_fingerprint(self.manifest_path) == self._expected.fingerprint
        return self.manifest_path.is_file() and not intact_files(self.manifest_path)[1]

    def _describe(self) -> dict[str, Any]:
        return {"path": self._path}
