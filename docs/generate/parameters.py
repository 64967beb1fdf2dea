"""One page of parameters for each pipeline: the keys of its file in ``conf/base``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from griffe import Docstring, DocstringSectionKind
from kedro.pipeline import Node
from pydantic import BaseModel

from docs.generate.fields import FieldRow, rows, values
from docs.generate.markdown import code, codes, plain, summary, table
from docs.generate.project import ENVIRONMENTS, Project, load_project, sections
from safetydpo_kedro.settings import EXPERTS

HEAD = ("key", "type", "default", "conf/base", "elsewhere", "what it is")
MISSING = "*no description*"
LONGEST = 160  # characters of a value


@dataclass(frozen=True)
class Values:
    """What the configuration says of every key.

    Attributes:
        base: dotted key → value in ``conf/base``, as YAML.
        others: environment, or expert with parameters of its own → the same.
    """

    base: dict[str, str]
    others: dict[str, dict[str, str]]

    def stated(self, key: str) -> str:
        """Value in ``conf/base``."""
        return code(_short(self.base.get(key, "")))

    def elsewhere(self, key: str) -> str:
        """Where the value is another one, and which."""
        differing: dict[str, list[str]] = {}
        for name, found in self.others.items():
            if key in found and found[key] != self.base.get(key):
                differing.setdefault(_short(found[key]), []).append(name)
        return "; ".join(f"{', '.join(names)}: {code(text)}" for text, names in differing.items())


def parameter_page(project: Project, pipeline: str) -> str:
    """Markdown of the parameters that a pipeline's file states; an empty text without any."""
    owned = [name for name in sections(pipeline) if name not in EXPERTS]
    if not owned:
        return ""
    found = _values()
    lines = [
        f"# Parameters: {pipeline}",
        f"From `conf/base/parameters_{pipeline}.yml`. *default*: of the typed model, if no file "
        "states a value; *elsewhere*: where the value is another one. "
        "Change one for a run with `kedro run --params <key>=<value>`.",
    ]
    for name in owned:
        lines += _section(project, name, project.parameters["base"][name], found)
    return "\n\n".join(lines) + "\n"


def typed_sections(key: str, value: Any) -> Iterator[tuple[str, BaseModel]]:
    """Dotted names of the parameters that are models, outermost first."""
    if isinstance(value, BaseModel):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from typed_sections(f"{key}.{name}", inner)


def undescribed(project: Project) -> list[str]:
    """Fields without a description, as ``Model.field``."""
    found = {
        f"{row.model.__name__}.{row.key.rpartition('.')[2]}"
        for name, value in project.parameters["base"].items()
        for key, model in typed_sections(name, value)
        for row in rows(key, type(model), model)
        if not row.description
    }
    return sorted(found)


def _section(project: Project, name: str, value: Any, found: Values) -> Iterator[str]:
    models = dict(typed_sections(name, value))
    leaves = [key for key in values(name, value) if not any(_within(key, m) for m in models)]
    leaves = [key for key in leaves if not any(_holds(key, other) for other in [*models, *leaves])]
    if leaves:
        yield f"## {name}"
        yield table(HEAD, [_leaf(project, key, found) for key in leaves])
    for key, model in models.items():
        yield f"## {key}"
        yield f"{summary(type(model))} {_readers(project, key)}"
        absent = [env for env in ENVIRONMENTS if found.others[env].get(key) == "null"]
        if absent:
            yield f"Not in {', '.join(absent)}, where it is `null`."
        yield table(HEAD, [_row(row, found) for row in rows(key, type(model), model)])


def _row(row: FieldRow, found: Values) -> tuple[str, ...]:
    kind = f"{row.kind}; {row.bounds}" if row.bounds else row.kind
    default = row.default if row.default == "required" else code(_short(row.default))
    nested = not row.default  # a model's own fields follow
    stated = "" if nested else found.stated(row.key)
    elsewhere = "" if nested else found.elsewhere(row.key)
    return (
        code(row.key),
        kind,
        default,
        stated,
        elsewhere,
        row.description.replace("None:", "null:") or MISSING,
    )


def _leaf(project: Project, key: str, found: Values) -> tuple[str, ...]:
    about = _argument(project, key)
    return code(key), "", "", found.stated(key), found.elsewhere(key), about


@cache
def _values() -> Values:
    found = {env: _flat(parameters) for env, parameters in load_project().parameters.items()}
    base = found.pop("base")
    experts = {name: _flat(load_project().parameters["base"][name]) for name in EXPERTS}
    for own in experts.values():
        del own["categories"]  # of the expert alone
    return Values(base, experts | found)


def _flat(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: text for name, value in parameters.items() for key, text in values(name, value).items()
    }


def _readers(project: Project, key: str) -> str:
    """Which nodes take a parameter, by pipeline."""
    names: dict[str, list[str]] = {}
    for pipeline, content in project.pipelines.items():
        for node in content.nodes:
            if f"params:{key}" in _common(node.inputs) and node.func.__name__ not in names.get(
                pipeline, []
            ):
                names.setdefault(pipeline, []).append(node.func.__name__)
    listed = [f"{codes(nodes)} of {pipeline}" for pipeline, nodes in names.items()]
    return f"Read by {'; '.join(listed)}." if listed else ""


def _common(inputs: list[str]) -> set[str]:
    """Names of inputs; those of an expert under the name that holds for all, too."""
    plain_names = {name.removeprefix("params:") for name in inputs if name.startswith("params:")}
    shared = {name.partition(".")[2] for name in plain_names if name.partition(".")[0] in EXPERTS}
    return {f"params:{name}" for name in plain_names | shared}


def _argument(project: Project, key: str) -> str:
    """What a node's docstring says of the argument that takes a parameter, or its section."""
    for pipeline in project.pipelines.values():
        for node in pipeline.nodes:
            if f"params:{key}" in node.inputs:
                docs = _documented_arguments(node.func)
                named = (docs.get(argument) for argument in _arguments(node, f"params:{key}"))
                return plain(next(filter(None, named), ""))
    above = key.rpartition(".")[0]
    return _argument(project, above) if above else ""


def _arguments(node: Node, dataset: str) -> list[str]:
    """Arguments of a node's function that are given a data set."""
    names = inspect.signature(node.func).parameters
    given = node._inputs
    if isinstance(given, str):
        given = [given]
    pairs = given.items() if isinstance(given, dict) else zip(names, given, strict=False)
    return [name for name, source in pairs if source == dataset]


def _documented_arguments(function: Any) -> dict[str, str]:
    parsed = Docstring(function.__doc__ or "").parse("google", warnings=False)
    found = (s.value for s in parsed if s.kind is DocstringSectionKind.parameters)
    return {item.name: item.description for section in found for item in section}


def _within(key: str, section: str) -> bool:
    return key == section or _holds(section, key)


def _holds(section: str, key: str) -> bool:
    return key.startswith(f"{section}.")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"
