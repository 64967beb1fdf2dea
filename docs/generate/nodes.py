"""One page for each pipeline: what it does, how to run it, and its nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from kedro.pipeline import Node

from docs.generate.catalog import entry_comments
from docs.generate.markdown import code, codes, plain, summary, table
from docs.generate.project import Project, sections

MOST = 24  # inputs that are named
HEAD = ("node", "what it does", "inputs", "outputs", "tags")


@dataclass
class Group:
    """Nodes that do the same to different data sets, such as the training of every expert.

    Attributes:
        project: that they are part of.
        nodes: in the order of the pipeline.
    """

    project: Project
    nodes: list[Node] = field(default_factory=list)

    @property
    def places(self) -> list[str]:
        """Last part of each node's namespace, if these tell the nodes apart; else nothing."""
        found = sorted({last_part(node) for node in self.nodes} - {""})
        return found if 1 < len(found) == len(self.nodes) else []

    @property
    def label(self) -> str:
        """The node's name; of many, the common one or the first."""
        first = self.nodes[0]
        if self.places:
            return f"{code(general(first, first.name))} for {', '.join(self.places)}"
        more = f" and {len(self.nodes) - 1} more" if len(self.nodes) > 1 else ""
        return code(first.name) + more

    def names(self, side: str) -> list[str]:
        """What the nodes' ``inputs`` or ``outputs`` are called, each once."""
        found: dict[str, None] = {}
        for node in self.nodes:
            for name in getattr(node, side):
                entry = self.project.entries.get(name, name)
                found[general(node, entry) if self.places else entry] = None
        return list(found)


def last_part(node: Node) -> str:
    """Last part of a node's namespace."""
    return (node.namespace or "").rpartition(".")[2]


def general(node: Node, name: str) -> str:
    """A name with a star for the last part of the node's namespace."""
    kind = "params:" if name.startswith("params:") else ""
    parts = name.removeprefix(kind).split(".")
    return kind + ".".join("*" if part == last_part(node) else part for part in parts)


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
        f"{len(pipeline.nodes)} nodes, {part}. {' · '.join(links)}".strip(),
        table(HEAD, [_row(group) for group in groups(project, name)]),
    ]
    return "\n\n".join(lines) + "\n"


def groups(project: Project, name: str) -> list[Group]:
    """Nodes of a pipeline, in its order; those that do the same together."""
    found: dict[tuple, Group] = {}
    for node in project.pipelines[name].nodes:
        outputs = tuple(general(node, project.entries.get(name, name)) for name in node.outputs)
        found.setdefault((node.func, outputs), Group(project)).nodes.append(node)
    return list(found.values())


def _row(group: Group) -> tuple[str, ...]:
    node, inputs = group.nodes[0], group.names("inputs")
    return (
        group.label,
        summary(node.func),
        codes(inputs[:MOST]) + (", …" if len(inputs) > MOST else ""),
        codes(group.names("outputs")),
        codes(sorted(node.tags)),
    )
