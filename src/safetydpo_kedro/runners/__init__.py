"""Runners beside Kedro's own.

``kedro run --runner safetydpo_kedro.runners.DaskRunner``
"""

from safetydpo_kedro.runners.dask_runner import DaskRunner

__all__ = ["DaskRunner"]
