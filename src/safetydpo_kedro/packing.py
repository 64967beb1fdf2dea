"""Nested states as JSON with the tensors taken out, so that they can be kept without pickle.

Optimizers and schedules keep their state in nested dictionaries, lists and tuples of tensors and
Python numbers. :func:`pack` splits such a state into a JSON form and a flat ``name → tensor``,
:func:`unpack` joins them again. What JSON does not know is written as an object of one key:

    {"$tensor": name}                 a tensor, by its name
    {"$tuple": [item, …]}             a tuple
    {"$items": [[key, value], …]}     a dictionary whose keys are not all ordinary texts
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def pack(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """JSON form of a nested state; its tensors are put into ``tensors``.

    Args:
        value: dictionaries (keys: text or numbers), lists, tuples, tensors, and what JSON knows.
        tensors: gets every tensor of ``value``, under its path such as ``optimizer/0/exp_avg``.
        name: path of ``value`` itself.

    Raises:
        ValueError: two tensors would have the same path.
    """
    if isinstance(value, Tensor):
        if name in tensors:
            raise ValueError(f"two tensors of the state have the path '{name}': rename one of them")
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, Mapping):
        items = [
            [key, pack(inner, tensors, f"{name}/{key}" if name else str(key))]
            for key, inner in value.items()
        ]
        ordinary = all(isinstance(key, str) and not key.startswith("$") for key in value)
        return dict(items) if ordinary else {"$items": items}
    if isinstance(value, list | tuple):
        items = [pack(inner, tensors, f"{name}/{i}") for i, inner in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    return value


def unpack(form: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The nested state whose JSON form and tensors :func:`pack` made.

    Raises:
        KeyError: ``tensors`` lacks one that the form names.
    """
    match form:
        case {"$tensor": name}:
            return tensors[name]
        case {"$tuple": items}:
            return tuple(unpack(inner, tensors) for inner in items)
        case {"$items": items}:
            return {key: unpack(inner, tensors) for key, inner in items}
        case dict():
            return {key: unpack(inner, tensors) for key, inner in form.items()}
        case list():
            return [unpack(inner, tensors) for inner in form]
    return form
