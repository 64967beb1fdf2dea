"""Runs of ``kedro`` in process groups of their own, which may be killed at any moment."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..processes import start

TIME_LIMIT = 900


class Run:
    """A ``kedro`` command that has been started.

    Args:
        project: the folder.
        arguments: of the command.
        before: called in the process first, to limit what it may use, say.
    """

    def __init__(
        self, project: Path, *arguments: str, before: Callable[[], object] | None = None
    ) -> None:
        self.log = project / "run.log"
        self.process: BaseProcess = start(_kedro, project, self.log, arguments, before)
        self._started = time.monotonic()

    def wait(self) -> str:
        """Wait for its end; what it has printed.

        Raises:
            AssertionError: it failed, or takes too long.
        """
        assert self.code() == 0, self.printed()[-4000:]
        return self.printed()

    def fail(self) -> str:
        """Wait for its failure; what it has printed.

        Raises:
            AssertionError: it did not fail, or takes too long.
        """
        assert self.code() not in (0, None), self.printed()[-4000:]
        return self.printed()

    def code(self) -> int | None:
        """Exit code, once it has ended."""
        self.process.join(TIME_LIMIT)
        return self.process.exitcode

    def printed(self) -> str:
        """What it has printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    def kill_at(self, seconds: float, when: Callable[[], bool] = lambda: True) -> bool:
        """Kill the whole group after so many seconds, once ``when`` is true.

        Returns:
            Whether it was still running.
        """
        while self.process.is_alive():
            passed = time.monotonic() - self._started
            if passed >= seconds and when():
                break
            time.sleep(0.005 if passed >= seconds else 0.02)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL


def run(project: Path, *arguments: str) -> str:
    """Run a ``kedro`` command to its end; what it has printed.

    Raises:
        AssertionError: it failed.
    """
    return Run(project, *arguments).wait()


def _kedro(
    project: Path, log: Path, arguments: tuple[str, ...], before: Callable[[], object] | None
) -> None:
    os.setsid()
    os.chdir(project)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if before:
        before()
    from kedro.framework.cli.cli import main

    sys.argv = ["kedro", *arguments]
    main()
