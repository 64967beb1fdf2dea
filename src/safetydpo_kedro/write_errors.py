"""What to do when a file cannot be written: said in one error, whichever library wrote it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AGAIN = "then run the same command again: what is finished stays"
REASONS = {
    errno.ENOSPC: f"the disk is full; free some space, {_AGAIN}",
    errno.EDQUOT: f"the disk quota is used up; free some space, {_AGAIN}",
    errno.EFBIG: f"files must not be that large here; raise the limit (ulimit -f), {_AGAIN}",
    errno.EIO: f"the disk reports an error; look after it, {_AGAIN}",
    errno.EROFS: f"its file system is read-only; make it writable, or name another folder as "
    f"`artifacts` in conf/<env>/globals.yml, {_AGAIN}",
    errno.EACCES: f"there is no permission; ask for it, or name another folder as "
    f"`artifacts` in conf/<env>/globals.yml, {_AGAIN}",
}
REASONS[errno.EPERM] = REASONS[errno.EACCES]
# Libraries in other languages, safetensors for one, say the number in their text.
_NUMBER = re.compile(r"(?:os error|[Ee]rrno) (\d+)")


class CannotWriteError(OSError):
    """A file could not be written, for a reason outside of the program."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say what to do if the block cannot write ``path``; other errors stay as they are.

    Raises:
        CannotWriteError: the disk is full, read-only or broken; ``filename`` is the path.
    """
    try:
        yield
    except CannotWriteError:
        raise  # of a file that belongs to this one
    except Exception as error:
        number = _error_number(error)
        if number not in REASONS:
            raise
        reason = REASONS[number]
        raise CannotWriteError(number, f"{path} was not written: {reason}", str(path)) from error


def _error_number(error: BaseException | None) -> int | None:
    """Number of the system's error that is behind an exception, or behind its cause."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := _NUMBER.search(str(error)):
            return int(found.group(1))
        error = error.__cause__
    return None
