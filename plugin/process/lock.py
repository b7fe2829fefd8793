"""A lock on a file that dies with the last process that holds it, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from newrelax.errors import UserError


class Held(UserError):
    """Another process holds the lock. `holder` says which one, as it said itself."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}: wait for it")
        self.holder = holder


@dataclass(frozen=True)
class Lock:
    """A lock that is held.

    The lock belongs to the open file: a child process that is given `descriptor` (`subprocess`'s `pass_fds`) holds it,
    too, for as long as it lives. `binding` is False where the file system has no locks and nothing keeps others away.
    """

    descriptor: int
    binding: bool = True


@contextmanager
def locked(path: Path) -> Iterator[Lock]:
    """Holds the lock of the file `path`, which is made where it is missing and stays: removing it would split the lock.

    Raises:
        Held: another process holds it.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(path, _holder(descriptor)) from None
        except OSError:  # a file system without locks
            yield Lock(descriptor, binding=False)
            return
        _sign(descriptor)
        yield Lock(descriptor)
    finally:
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Writes who holds the lock; on a full disk it is held all the same."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
