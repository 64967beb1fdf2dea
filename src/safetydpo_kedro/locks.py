"""Advisory locks on files and folders, which the kernel releases when a process ends or dies."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # another system than Linux or macOS
    fcntl = None  # type: ignore[assignment]

NOT_SUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# Who releases a lock holds it for a moment more, to remove its file: wait that long.
PAUSES = (0.02, 0.05, 0.1, 0.2)


class LockedError(RuntimeError):
    """Another run writes what this one would read or write, or reads what it would write."""


class LocksNotSupportedError(OSError):
    """The file system has no locks."""


class Lock:
    """A lock on one artifact: a hidden file beside it, ``.<name>.lock``.

    Many may hold it shared, or one exclusively. The file says who holds it exclusively; it is
    removed with the lock. One that a killed process has left behind locks nothing.

    Args:
        path: file or folder that is locked; it need not be there.
        exclusive: nobody else may hold it at the same time.

    Raises:
        LockedError: others hold it, and one of us wants it for itself alone.
        LocksNotSupportedError: the file system has no locks.
        OSError: the lock file cannot be made, because its folder cannot be written to, say.
    """

    def __init__(self, path: Path, exclusive: bool) -> None:
        self.path = Path(path)
        self.file = lock_file(path)
        self._descriptor = self._acquire(exclusive)
        if exclusive:
            try:
                self._sign()
            except OSError:  # the disk is full, say
                self.release()
                raise

    def release(self) -> None:
        """Let others have it; the last one removes the file."""
        if _try_lock(self._descriptor, exclusive=True):
            self.file.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _sign(self) -> None:
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": _now()}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)

    def _acquire(self, exclusive: bool) -> int:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        for patience in (*PAUSES, None):
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if _try_lock(descriptor, exclusive):
                    if _is_open_at(descriptor, self.file):
                        return descriptor
                elif patience is None:
                    raise LockedError(self._explain(descriptor))
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            time.sleep(patience or 0)
        raise LockedError(f"{self.path} is being locked and released all the time: try again")

    def _explain(self, descriptor: int) -> str:
        if _try_lock(descriptor, exclusive=False):  # shared, as the others have it
            what, holder = "read", ""
        else:
            what, holder = "written", _holder(os.pread(descriptor, 4096, 0))
        return (
            f"{self.path} is being {what} by another run{holder}: wait until that has ended, or "
            f"give each run artifacts of its own, by --namespaces or another project folder. The "
            f"lock goes by itself with the process that holds it, or its workers"
        )


def lock_file(path: Path) -> Path:
    """Where the lock of a file or folder lies.

    Example:
        >>> lock_file(Path("data/hate.safetensors")).as_posix()
        'data/.hate.safetensors.lock'
    """
    return Path(path).with_name(f".{Path(path).name}.lock")


def allow_open_files(count: int) -> None:
    """Let this process have that many files open, where the system's limit for users is lower."""
    if fcntl is None:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _try_lock(descriptor: int, exclusive: bool) -> bool:
    if fcntl is None:
        raise LocksNotSupportedError(errno.ENOSYS, "this system has no file locks")
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NOT_SUPPORTED:
            raise LocksNotSupportedError(error.errno, error.strerror) from error
        raise
    return True


def _is_open_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f" (process {holder['process']} on {holder['host']}, since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        return ""


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")
