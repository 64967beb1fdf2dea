"""Pages of what parameters choose by name: merge strategies and attacks, with all settings."""

from __future__ import annotations

from inspect import getmodule
from typing import Any

from pydantic import BaseModel

from docs.generate.fields import rows
from docs.generate.markdown import code, plain, summary, table
from safetydpo_kedro.attacks import available_attacks, find_attack
from safetydpo_kedro.merging import available_strategies, find_strategy

HEAD = ("setting", "type", "default", "what it is")


def strategies_page() -> str:
    """Markdown of all merge strategies."""
    lines = [
        "# Merge strategies",
        "Keys below `merging.strategies.<name>`, and names that "
        "`safetydpo_kedro.merging.merge` takes.",
    ]
    for name in available_strategies():
        strategy = find_strategy(name)
        needs = f" Needs: {strategy.needs}." if strategy.needs else ""
        lines += [
            f"## {name}",
            summary(getmodule(strategy.function)) + needs,
            plain(summary(strategy.function)),
            _settings(strategy.config),
        ]
    return "\n\n".join(lines) + "\n"


def attacks_page() -> str:
    """Markdown of all attacks."""
    lines = ["# Attacks", "Keys below `adversarial.search.attacks.<name>`."]
    for name in available_attacks():
        attack = find_attack(name)
        lines += [
            f"## {name}",
            f"{summary(getmodule(attack.config))} It sees of the victim: {attack.sees}.",
            _settings(attack.config),
        ]
    return "\n\n".join(lines) + "\n"


def _settings(config: type[BaseModel]) -> str:
    return table(HEAD, [_row(row) for row in rows("", config)])


def _row(row: Any) -> tuple[str, ...]:
    kind = f"{row.kind}; {row.bounds}" if row.bounds else row.kind
    return code(row.key.removeprefix(".")), kind, code(row.default), row.description
