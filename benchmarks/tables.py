"""What the benchmarks print: Markdown tables, and the name of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

GIB, MIB = 2**30, 2**20


def table(title: str, header: str, rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table under a title.

    Args:
        title: a line of text.
        header: names of the columns, with ``|`` between them.
        rows: cells; printed as they come.
    """
    columns = [name.strip() for name in header.split("|")]
    print(f"\n### {title}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def machine() -> str:
    """The accelerator's name, or the number of CPU cores in use."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU cores"


def name_of(precision: torch.dtype) -> str:
    """``"bfloat16"`` of ``torch.bfloat16``."""
    return str(precision).removeprefix("torch.")
