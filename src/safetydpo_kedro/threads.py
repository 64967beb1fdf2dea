"""What threads of one run must not do at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments, Result = ParamSpec("Arguments"), TypeVar("Result")

_BUILDING = threading.RLock()


def builds_models(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let only one thread at a time run functions that are decorated so.

    diffusers and transformers load weights into modules that they first create without memory, by
    a patch of torch that every thread sees: a model that is built meanwhile would lack its weights.
    """

    @wraps(function)
    def alone(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _BUILDING:
            return function(*args, **kwargs)

    return alone
