"""Damaged inputs, and what becomes of each: refused, set aside, or used because it is harmless."""

from __future__ import annotations

import random
import resource
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

import safetydpo_kedro

T = TypeVar("T")

OUTCOMES = ("tried", "refused", "set aside", "accepted")
PROPERTY = "damaged inputs"  # by which counts travel from a test to the end of the run
PATIENCE = 60  # seconds for one input, after which it counts as a hang
ROOM = 2**30  # bytes that the process may grow by in one test
OURS = Path(safetydpo_kedro.__file__).parent
# Messages of libraries that, on their own, say neither what to do nor what is at fault.
WRAPPED_BY = ("kedro",)


class Tally:
    """Counts inputs of one kind, and holds what every damaged input must hold.

    Args:
        kind: of input, for the table at the end of the run.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.counts: Counter[str] = Counter()

    def tries(self, work: Callable[[], T], *mentions: str) -> T | None:
        """What becomes of one input; ``None`` if it is refused with a clear error.

        Args:
            work: uses the input.
            mentions: texts that the error must hold, such as the name of the file.

        Raises:
            AssertionError: the error is none of the project's own, or leaves out what is wrong.
        """
        self.counts["tried"] += 1
        try:
            with patience():
                result = work()
        except Exception as error:
            check_clear(error, mentions)
            self.counts["refused"] += 1
            return None
        self.counts["accepted"] += 1
        return result

    def aside(self, count: int = 1, of: int = 0) -> None:
        """Parts of inputs that were set aside and counted, of so many that were ``tried``."""
        self.counts["tried"] += of
        self.counts["set aside"] += count
        self.counts["accepted"] += of - count


def check_clear(error: BaseException, mentions: tuple[str, ...] = ()) -> None:
    """Hold that an error comes from the project's own check, and names what is wrong."""
    cause = error
    while _raised_in(cause, *WRAPPED_BY) and cause.__cause__ is not None:
        cause = cause.__cause__  # Kedro puts the error of a data set into one of its own
    shown = "".join(traceback.format_exception(error))
    is_own = isinstance(cause, ValidationError) or _raised_in(cause, str(OURS))
    assert is_own, f"an error from the depths:\n{shown}"
    message = str(error)
    assert len(message) > 20 and "\0" not in message, f"it says too little:\n{shown}"
    assert len(message) < 20_000, "it says too much"
    missing = [text for text in mentions if text not in message]
    assert not missing, f"it does not mention {missing}:\n{shown}"


def _raised_in(error: BaseException, *places: str) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    parts = Path(frames[-1].filename)
    return any(place in parts.parts or str(parts).startswith(place) for place in places)


@contextmanager
def patience() -> Iterator[None]:
    """Within the block more than :data:`PATIENCE` seconds is an error: nothing may hang."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still at it after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def little_memory() -> Iterator[None]:
    """Hold that the process does not grow by more than :data:`ROOM` within the block."""
    before = _peak()
    yield
    assert _peak() - before < ROOM, f"grew by {(_peak() - before) / 2**20:.0f} MiB"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One way in which disks, networks and people spoil a file."""
    kind = chance.randrange(9)
    if kind == 0 or not content:
        return b""
    place = chance.randrange(len(content))
    length = min(chance.choice((1, 4, 64, 4096)), len(content) - place)
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[place:]
    if kind == 3:
        return content[:place] + bytes(length) + content[place + length :]
    if kind == 4:
        return content[:place] + chance.randbytes(length) + content[place + length :]
    if kind == 5:
        return content[:place] + content[place + length :]
    if kind == 6:
        return content[:place] + content[place : place + length] * 2 + content[place + length :]
    if kind == 7:
        return chance.choice(OTHER_KINDS)
    flipped = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 20))):
        flipped[chance.randrange(min(len(content), chance.choice((32, 1024, 2**30))))] ^= (
            1 << chance.randrange(8)
        )
    return bytes(flipped)


# The beginning of files of other kinds: an archive, a page, a picture, a pickle, a pointer, ...
OTHER_KINDS = (
    b"PK\x03\x04" + bytes(60),
    b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    b"\x89PNG\r\n\x1a\n" + bytes(30),
    b"\x80\x04]\x94.",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    b"\xff\xd8\xff\xe0" + bytes(30),
    b"\x1f\x8b\x08" + bytes(20),
    b"PAR1" + bytes(20) + b"PAR1",
    b"\x7fELF" + bytes(40),
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf",
    bytes(4096),
)


def record(books: Tally) -> tuple[str, Any]:
    """Counts as a property of a test, which workers of a test run hand on."""
    return PROPERTY, (books.kind, dict(books.counts))


def table(reports: list[pytest.TestReport]) -> list[str]:
    """Lines of a Markdown table: what became of how many inputs, by kind."""
    kinds: dict[str, Counter[str]] = {}
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == PROPERTY and report.when == "teardown":
                kind, counts = value
                kinds.setdefault(kind, Counter()).update(counts)
    if not kinds:
        return []
    total = sum(kinds.values(), Counter())
    rows = [*sorted(kinds.items()), ("all", total)]
    lines = ["| input | tried | refused | set aside and counted | used: harmless |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for kind, counts in rows:
        lines.append(f"| {kind} | " + " | ".join(f"{counts[o]:,}" for o in OUTCOMES) + " |")
    return lines
