"""One page of catalog entries for each file ``catalog_<pipeline>.yml``."""

from __future__ import annotations

import re
from typing import Any

from docs.generate.markdown import code, codes, table
from docs.generate.project import CONF, ENVIRONMENTS, Project

HEAD = ("entry", "layer", "type", "where", "made by", "used by", "what it is")
ENTRY = re.compile(r'^"?([^\s"#:]+)"?:(?:\s*#\s*(.*))?')


def catalog_page(project: Project, pipeline: str) -> str:
    """Markdown of the entries that a pipeline's file states; an empty text without any."""
    comments = entry_comments(pipeline)
    if not comments:
        return ""
    entries = project.catalog["base"]
    lines = [
        f"# Catalog: {pipeline}",
        f"From `conf/base/catalog_{pipeline}.yml`. A name with `{{…}}` is a pattern: it stands for "
        "every data set whose name matches.",
        table(HEAD, [_row(project, name, entries[name], comments[name]) for name in comments]),
    ]
    return "\n\n".join(lines) + "\n"


def entry_comments(pipeline: str) -> dict[str, str]:
    """Entries of a pipeline's file, in its order, and the comment above or beside each."""
    file = CONF / f"base/catalog_{pipeline}.yml"
    found: dict[str, str] = {}
    above: list[str] = []
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        entry = ENTRY.match(line)
        if line.startswith("#"):
            above.append(line.removeprefix("#").strip())
        elif entry:
            found[entry[1]] = " ".join(above) or entry[2] or ""
            above = []
        elif not line.strip():
            above = []
    return found


def _row(project: Project, name: str, entry: dict[str, Any], comment: str) -> tuple[str, ...]:
    metadata = entry.get("metadata", {})
    elsewhere = [env for env in ENVIRONMENTS if project.catalog[env].get(name) != entry]
    replaced = [env for env in elsewhere if _place(project.catalog[env][name]) != _place(entry)]
    kind = (
        entry["type"]
        if "dataset" not in entry
        else f"{entry['type']} of {entry['dataset']['type']}"
    )
    about = [metadata.get("description", comment)]
    about += [f"{env}: {code(_place(project.catalog[env][name]))}" for env in replaced]
    return (
        code(name),
        metadata.get("kedro-viz", {}).get("layer", ""),
        code(kind.replace("safetydpo_kedro.datasets.", "")),
        code(_place(entry)),
        _nodes(project, name, "outputs"),
        _nodes(project, name, "inputs"),
        " ".join(filter(None, about)).replace("|", "\\|"),
    )


def _place(entry: dict[str, Any]) -> str:
    """Path of an entry, or of the data set that it wraps; nothing without one."""
    inner = entry.get("dataset", {})
    places = (source.get(key) for source in (entry, inner) for key in ("filepath", "path"))
    return next(filter(None, places), "")


def _nodes(project: Project, entry: str, side: str) -> str:
    """Functions that make or use an entry, by pipeline; parts of one pipeline in another once."""
    names: dict[str, list[str]] = {}
    for pipeline, content in project.pipelines.items():
        for node in content.nodes:
            if any(project.entry(dataset) == entry for dataset in getattr(node, side)):
                users = names.setdefault(node.func.__name__, [])
                users += [pipeline] * (pipeline not in users)
    grouped: dict[str, list[str]] = {}
    for function, users in names.items():
        grouped.setdefault(", ".join(users), []).append(function)
    return "; ".join(f"{codes(functions)} ({users})" for users, functions in grouped.items())
