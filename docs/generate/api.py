"""One page for each package of the interface for Python, which mkdocstrings fills in."""

from __future__ import annotations

from docs.generate.project import ROOT

SOURCE = ROOT / "src/safetydpo_kedro"
PACKAGES = (
    "prompts",
    "diffusion",
    "preference",
    "merging",
    "metrics",
    "baselines",
    "attacks",
    "reporting",
    "datasets",
)


def modules(package: str) -> list[str]:
    """Import paths of a package's modules, itself first where it documents anything."""
    files = sorted((SOURCE / package).rglob("*.py"))
    paths = [file.relative_to(SOURCE.parent).with_suffix("") for file in files]
    return [".".join(path.parts) for path in paths if path.name != "__init__"]


def api_page(package: str) -> str:
    """Markdown with a directive for every module of a package."""
    blocks = [f"::: {module}" for module in modules(package)]
    return "\n\n".join([f"# {package}", *blocks]) + "\n"
