"""One page for each pipeline: what it does, how to run it, and its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from kedro.pipeline import Node

from docs.generate.catalog import entry_comments
from docs.generate.markdown import code, codes, plain, summary, table
from docs.generate.project import Project, sections

HEAD = ("node", "what it does", "inputs", "outputs", "tags")


@dataclass
class Group:
    """Nodes that do the same to different data sets, such as the training of every expert.

    Attributes:
        nodes: in the order of the pipeline.
        inputs: data sets and parameters, those of a catalog pattern under its name.
        outputs: likewise.
    """

    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def add(self, project: Project, node: Node) -> None:
        """Add a node, and what it reads and makes that others do not."""
        self.nodes.append(node)
        for names, known in ((node.inputs, self.inputs), (node.outputs, self.outputs)):
            for name in (_general(project, node, name) for name in names):
                if name not in known:
                    known.append(name)

    @property
    def label(self) -> str:
        """The node's name; of many, the common one or the first."""
        first = self.nodes[0]
        if len(self.nodes) == 1:
            return code(first.name)
        if first.namespace:
            spaces = ", ".join(node.namespace or "" for node in self.nodes)
            return f"{code('{namespace}.' + first.short_name.split('.')[-1])} for {spaces}"
        return f"{code(first.name)} and {len(self.nodes) - 1} more"


def pipeline_page(project: Project, name: str) -> str:
    """Markdown about a pipeline and its nodes."""
    pipeline = project.pipelines[name]
    module = __import__(f"safetydpo_kedro.pipelines.{name}.pipeline", fromlist=["pipeline"])
    part = "part of `kedro run`" if project.in_default(name) else "not part of `kedro run`"
    links = []
    if sections(name):
        links.append(f"[parameters](../parameters/{name}.md)")
    if entry_comments(name):
        links.append(f"[catalog](../catalog/{name}.md)")
    lines = [
        f"# Pipeline: {name}",
        plain(summary(module)),
        f"```bash\nkedro run --pipelines {name}\n```",
        f"{len(pipeline.nodes)} nodes, {part}. {' · '.join(links).capitalize()}".strip(),
        table(HEAD, [_row(group) for group in groups(project, name)]),
    ]
    return "\n\n".join(lines) + "\n"


def groups(project: Project, name: str) -> list[Group]:
    """Nodes of a pipeline, in its order; those that do the same together."""
    found: dict[tuple, Group] = {}
    for node in project.pipelines[name].nodes:
        outputs = tuple(_general(project, node, output) for output in node.outputs)
        found.setdefault((node.func, outputs), Group()).add(project, node)
    return list(found.values())


def _row(group: Group) -> tuple[str, ...]:
    node = group.nodes[0]
    shown = group.inputs if len(group.inputs) <= 24 else [*group.inputs[:24], "…"]
    return (
        group.label,
        summary(node.func),
        codes(shown),
        codes(group.outputs),
        codes(sorted(node.tags)),
    )


def _general(project: Project, node: Node, name: str) -> str:
    """Name of an input or output for all namespaces, or the catalog pattern that it matches."""
    if node.namespace:
        kind = "params:" if name.startswith("params:") else ""
        rest = name.removeprefix(kind)
        if rest.startswith(f"{node.namespace}."):
            return f"{kind}{{namespace}}.{rest.removeprefix(f'{node.namespace}.')}"
        if rest.endswith(f".{node.namespace}"):
            return f"{kind}{rest.removesuffix(node.namespace)}{{namespace}}"
    return name if name.startswith("params:") else project.entry(name)
