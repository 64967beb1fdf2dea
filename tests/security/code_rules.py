"""What no line of the project's own code may do, read from its syntax tree."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICKLES = {"pickle", "_pickle", "pickletools", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
RUNNERS = {"eval", "exec"}
# pandas, NumPy and torch: functions that open, or write, a pickle whatever they are told.
OPENERS = {"read_pickle", "to_pickle", "full_load", "unsafe_load"}
# Classes whose files hold no weights.
WITHOUT_WEIGHTS = ("Tokenizer", "Processor", "Config", "Scheduler")


def python_sources() -> Iterator[tuple[str, str]]:
    """Name and text of every Python file, and of all code cells of every notebook."""
    for folder in ("src", "benchmarks", "docs/generate"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        lines = "\n".join(code).splitlines()
        plain = ["pass" if line.startswith(("%", "!")) else line for line in lines]
        yield path.relative_to(ROOT).as_posix(), "\n".join(plain)


def findings(source: str) -> set[str]:
    """What a text of Python does that is not allowed."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name for a in node.names if (name := a.name.partition(".")[0]) in PICKLES}
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & PICKLES
        elif isinstance(node, ast.Call):
            found |= set(_call(node))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and not _harmless(str(key.value), value):
                    found.add(str(key.value))
    return found


def _call(node: ast.Call) -> Iterator[str]:
    owner, name = _names(node.func)
    options = {keyword.arg: keyword.value for keyword in node.keywords}
    yield from (key for key, value in options.items() if key and not _harmless(key, value))
    if (not owner and name in RUNNERS) or name in OPENERS:
        yield name
    if (owner, name) in {("os", "system"), ("os", "popen"), ("builtins", "eval")}:
        yield f"{owner}.{name}"
    if (owner, name) == ("torch", "load") and not _is(options.get("weights_only"), True):
        yield "torch.load"
    if (owner, name) == ("torch", "save"):
        yield "torch.save"
    if (owner, name) == ("yaml", "load") and "Safe" not in ast.dump(node):
        yield "yaml.load"
    if name == "from_pretrained" and not owner.endswith(WITHOUT_WEIGHTS):
        told = None in options or _is(options.get("use_safetensors"), True)
        if not told:
            yield "from_pretrained"
        elif not _is(options.get("use_safetensors"), True):
            yield "from_pretrained(**options)"


def _harmless(key: str, value: ast.AST) -> bool:
    """Whether an option of a call, or an entry of a dictionary of options, is no switch of code."""
    if key == "trust_remote_code":
        return _is(value, False)
    return key not in ("allow_pickle", "shell") or _is(value, False)


def _names(function: ast.AST) -> tuple[str, str]:
    """``torch.load`` → ``("torch", "load")``; ``load`` → ``("", "load")``."""
    if isinstance(function, ast.Attribute):
        return ast.unparse(function.value), function.attr
    return "", function.id if isinstance(function, ast.Name) else ""


def _is(value: ast.AST | None, expected: bool) -> bool:
    return isinstance(value, ast.Constant) and value.value is expected
