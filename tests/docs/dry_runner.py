"""A runner for ``kedro run --runner tests.docs.dry_runner.DryRunner``: all but the nodes."""

from __future__ import annotations

from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner


class Planned(Exception):
    """All is read, and nothing is wrong; raised so that no hook looks for what a run has made."""


class DryRunner(SequentialRunner):
    """Kedro reads the command, configuration, parameters, catalog and pipeline; nothing runs."""

    def __init__(self, **params: Any) -> None:
        """Take the parameters of any runner, in whose place it is."""
        super().__init__()

    def run(self, pipeline: Pipeline, catalog: CatalogProtocol, *args: Any, **kwargs: Any) -> dict:
        """Make the data sets that the run would load or save, so that wrong entries show.

        Raises:
            Planned: always, at the end.
            ValueError: there is nothing to run.
        """
        if not pipeline.nodes:
            raise ValueError("the command chooses no node")
        for name in pipeline.datasets():
            catalog.get(name)
        raise Planned
