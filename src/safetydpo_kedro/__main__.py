"""Lets the package run as ``python -m safetydpo_kedro`` and as ``safetydpo-kedro``."""

from __future__ import annotations

import sys
from copy import copy
from functools import wraps
from typing import Any


def main(*args: Any, **kwargs: Any) -> Any:
    """Run ``kedro run`` with the arguments of the command line.

    It is Kedro's own command. Kedro would look for another one in all installed plugins first,
    and import them for that; with MLflow among them that takes longer than a short run.
    """
    from kedro.framework.cli.project import run as kedro_run

    run = copy(kedro_run)
    run.callback = _configured(kedro_run.callback)
    kwargs["standalone_mode"] = not hasattr(sys, "ps1")
    return run(*args, **kwargs)


def _configured(callback: Any) -> Any:
    """Read the project's settings when a run begins; ``--help`` does not need them."""

    @wraps(callback)
    def configured(*args: Any, **kwargs: Any) -> Any:
        from kedro.framework.project import configure_project

        configure_project("safetydpo_kedro")
        return callback(*args, **kwargs)

    return configured


if __name__ == "__main__":
    main()
