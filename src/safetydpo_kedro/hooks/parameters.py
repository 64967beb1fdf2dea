"""A hook that refuses parameters which nothing reads.

Kedro checks values that a node takes as a typed model. A misspelt name of such a value would
stand in the configuration unread, and the run would go on with the default or fail late.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines


class ParameterHooks:
    """Check the sections of the parameters that are named after a pipeline."""

    @hook_impl
    def after_catalog_created(self, parameters: dict[str, Any]) -> None:
        """Refuse unknown keys, before any node runs.

        Raises:
            ValueError: a key that no pipeline reads.
        """
        from safetydpo_kedro.datasets.freshness import is_parameter

        names = {name for pipeline in pipelines.values() for name in pipeline.inputs()}
        read = {name.removeprefix("params:") for name in names if is_parameter(name)}
        for section in sorted(set(pipelines) & set(parameters["parameters"])):
            # A section may only hold defaults that a configuration loader copies elsewhere.
            if any(_below(name, section) for name in read):
                check_keys(section, parameters["parameters"][section], read)


def check_keys(path: str, value: Any, read: Set[str]) -> None:
    """Refuse a parameter that is neither read nor holds one that is.

    Args:
        path: dotted name of the parameter.
        value: its value; a mapping is looked into unless it is read as a whole.
        read: dotted names of all parameters that nodes take.

    Raises:
        ValueError: an unknown key.

    Example:
        >>> check_keys("evaluation", {"blurr": "all"}, {"evaluation.blur"})
        Traceback (most recent call last):
        ValueError: unknown parameter 'evaluation.blurr' = 'all': known keys here are blur; did ...
    """
    from safetydpo_kedro.validation import suggestion

    if path in read or not isinstance(value, Mapping):
        return
    known = {name.removeprefix(f"{path}.").split(".")[0] for name in read if _below(name, path)}
    for key, inner in value.items():
        if key not in known:
            advice = suggestion(key, sorted(known))
            raise ValueError(f"unknown parameter '{path}.{key}' = {inner!r}: {advice}")
        check_keys(f"{path}.{key}", inner, read)


def _below(name: str, path: str) -> bool:
    return name.startswith(f"{path}.")
