"""Which nodes an incremental run skips, which it does, and why: for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kedro.io import AbstractDataset, CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from safetydpo_kedro.artifacts import Manifest, Provenance, intact_files
from safetydpo_kedro.changes import list_changes
from safetydpo_kedro.datasets.freshness import manifest_path

SHOWN_CHANGES = 3


@dataclass(frozen=True)
class RunPlan:
    """Nodes of a pipeline by what an incremental run does with them, in running order.

    Attributes:
        fresh: names of the nodes that are skipped.
        redone: node name → why it runs.
        always: names of the nodes without outputs, which always run.
    """

    fresh: list[str]
    redone: dict[str, str]
    always: list[str]

    def lines(self) -> list[str]:
        """The plan in a few lines of text."""
        total = len(self.fresh) + len(self.redone) + len(self.always)
        always = f" Always runs: {', '.join(self.always)}." if self.always else ""
        if not self.redone:
            return [f"Everything is fresh: {len(self.fresh)} of {total} nodes skipped.{always}"]
        if not self.fresh:
            return [f"Nothing to reuse: all {total} nodes run ({_reasons(self.redone)})."]
        names = ", ".join(self.fresh)
        head = f"{len(self.fresh)} of {total} nodes are fresh and skipped: {names}.{always}"
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.redone.items():
            by_reason.setdefault(reason, []).append(name)
        return [head, *(f"Redo {', '.join(n)}: {reason}" for reason, n in by_reason.items())]


def _reasons(redone: Mapping[str, str]) -> str:
    reasons = list(dict.fromkeys(redone.values()))
    more = f", and {len(reasons) - SHOWN_CHANGES} more" if len(reasons) > SHOWN_CHANGES else ""
    return ", ".join(reasons[:SHOWN_CHANGES]) + more


def make_run_plan(
    pipeline: Pipeline, catalog: CatalogProtocol, expected: Mapping[str, Provenance]
) -> RunPlan:
    """What ``--only-missing-outputs`` will do, by the rules of Kedro's runner.

    A node runs if an output that is kept is not fresh, or if a node that runs needs one of its
    outputs that is not kept.
    """
    reasons: dict[Node, str] = {}
    for node in reversed(pipeline.nodes):
        if not node.outputs:
            continue
        reason = _own_reason(node, catalog, expected) or _needed_by(
            node, pipeline, reasons, catalog
        )
        if reason:
            reasons[node] = reason
    return RunPlan(
        fresh=[n.name for n in pipeline.nodes if n.outputs and n not in reasons],
        redone={n.name: reasons[n] for n in pipeline.nodes if n in reasons},
        always=[n.name for n in pipeline.nodes if not n.outputs],
    )


def _own_reason(
    node: Node, catalog: CatalogProtocol, expected: Mapping[str, Provenance]
) -> str | None:
    for name in node.outputs:
        if _is_kept(name, catalog) and not catalog.exists(name):
            return why_stale(name, catalog.get(name), expected[name.partition("@")[0]])
    return None


def _needed_by(
    node: Node, pipeline: Pipeline, reasons: Mapping[Node, str], catalog: CatalogProtocol
) -> str | None:
    passing = {name for name in node.outputs if not _is_kept(name, catalog)}
    for other in pipeline.nodes:
        if passing & set(other.inputs) and (other in reasons or not other.outputs):
            return f"{other.name} needs its output"
    return None


def _is_kept(name: str, catalog: CatalogProtocol) -> bool:
    return name in catalog and not getattr(catalog.get(name), "_EPHEMERAL", False)


def why_stale(name: str, dataset: AbstractDataset | None, expected: Provenance) -> str:
    """Why the artifact that is there, if any, is not the expected one."""
    path = manifest_path(dataset)
    manifest = Manifest.read(path) if path else None
    if manifest is None:
        return "no finished output yet"
    found = manifest.provenance
    if found.fingerprint == expected.fingerprint:
        broken = intact_files(path)[1]
        return f"{name}: {len(broken)} files missing or changed, such as {', '.join(broken[:1])}"
    changes = list_changes(found.parameters, expected.parameters)
    changes += [
        f"{key} changed" for key, value in expected.inputs.items() if found.inputs.get(key) != value
    ]
    more = [f"and {len(changes) - SHOWN_CHANGES} more"] if len(changes) > SHOWN_CHANGES else []
    return ", ".join(changes[:SHOWN_CHANGES] + more) or "made by another version of the code"
