"""One page of catalog entries for each file ``catalog_<pipeline>.yml``."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import yaml

from docs.generate.markdown import code, codes, table
from docs.generate.project import CONF, ENVIRONMENTS, Project, load_project

HEAD = ("entry", "layer", "type", "where", "made by", "used by", "what it is")
ENTRY = re.compile(r'^"?([^_\s"#:][^\s"#:]*)"?:(?:\s*#\s*(.*))?')


def catalog_page(project: Project, pipeline: str) -> str:
    """Markdown of the entries that a pipeline's file states; an empty text without any."""
    comments = entry_comments(pipeline)
    if not comments:
        return ""
    entries = project.catalog["base"]
    lines = [
        f"# Catalog: {pipeline}",
        f"From `conf/base/catalog_{pipeline}.yml`. A name with `{{…}}` is a pattern: it stands for "
        "every data set whose name matches. With `--env sdxl`, say, inputs lie in "
        "`data/01_raw/real` instead of `data/01_raw`, and artifacts below `data/sdxl`.",
        table(HEAD, [_row(project, name, entries[name], comments[name]) for name in comments]),
    ]
    return "\n\n".join(lines) + "\n"


def entry_comments(pipeline: str) -> dict[str, str]:
    """Entries of a pipeline's file, in its order, and the comment beside or above each."""
    file = CONF / f"base/catalog_{pipeline}.yml"
    found: dict[str, str] = {}
    above: list[str] = []
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        entry = ENTRY.match(line)
        if line.startswith("#"):
            above.append(line.removeprefix("#").strip())
        elif entry:
            found[entry[1]] = entry[2] or " ".join(above)
            above = []
        elif not line.strip():
            above = []
    return found


def _row(project: Project, name: str, entry: dict[str, Any], comment: str) -> tuple[str, ...]:
    metadata = entry.get("metadata", {})
    replaced = [env for env in ENVIRONMENTS if name in _stated(env)]
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
        _nodes(name, "outputs"),
        _nodes(name, "inputs"),
        " ".join(filter(None, about)).replace("|", "\\|"),
    )


@cache
def _stated(env: str) -> list[str]:
    """Entries of an environment's own file."""
    return list(yaml.safe_load((CONF / env / "catalog.yml").read_text("utf-8")))


def _place(entry: dict[str, Any]) -> str:
    """Path of an entry, or of the data set that it wraps; nothing without one."""
    inner = entry.get("dataset", {})
    places = (source.get(key) for source in (entry, inner) for key in ("filepath", "path"))
    return next(filter(None, places), "")


def _nodes(entry: str, side: str) -> str:
    """Functions that make or use an entry, by the pipelines that have them."""
    grouped: dict[str, list[str]] = {}
    for function, users in _users(side).get(entry, {}).items():
        grouped.setdefault(", ".join(users), []).append(function)
    return "; ".join(f"{codes(functions)} ({users})" for users, functions in grouped.items())


@cache
def _users(side: str) -> dict[str, dict[str, list[str]]]:
    """Entry → function of a node → pipelines; of the nodes' inputs or outputs."""
    project = load_project()
    found: dict[str, dict[str, list[str]]] = {}
    for pipeline, content in project.pipelines.items():
        for node in content.nodes:
            for entry in {project.entries.get(name, name) for name in getattr(node, side)}:
                users = found.setdefault(entry, {}).setdefault(node.func.__name__, [])
                users += [pipeline] * (pipeline not in users)
    return found
