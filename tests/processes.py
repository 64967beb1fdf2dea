"""Processes that start at once, because they are forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from .worlds import ROOT

SLOW_IMPORTS = [
    "safetydpo_kedro.diffusion.loading",
    "safetydpo_kedro.preference.trainer",
    "safetydpo_kedro.reporting.figures",
    "safetydpo_kedro.reporting.grids",
    "tests.processes",
]


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Run a function in a process of its own, which may be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    process = context.Process(target=_on_one_thread, args=(function, *arguments), daemon=True)
    process.start()
    return process


def kedro(*arguments: str) -> None:
    """What the command ``kedro`` does, in the repository's folder."""
    from kedro.framework.cli.cli import main

    os.chdir(ROOT)
    sys.argv = ["kedro", *arguments]
    main()


def _on_one_thread(function: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(1)
    function(*arguments)
