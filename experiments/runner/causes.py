"""Why a program ended without its result, and whether another try may well succeed.

How it ended tells first: a signal came from outside; exit code 2 is the user's mistake and comes back at each try, as does a
program that ends well without its result; EX_TEMPFAIL is a program's own word that the cause may pass. Only an error without
such a code is looked up by its last line.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from dataclasses import dataclass

from newrelax.cli import USER_ERROR

# Memory that others may free, a device or a network that was away.
_PASSING_ERROR = re.compile(
    r"out of memory|cannot allocate memory|can't allocate memory|MemoryError|alloc_failed|cudaErrorMemoryAllocation"
    r"|no space left|disk quota exceeded|too many open files|resource temporarily unavailable"
    r"|devices? (?:is|are) busy|unspecified launch failure|uncorrectable ECC|NCCL (?:timeout|error)"
    r"|connection (?:reset|refused|aborted)|name resolution|timed out|stale file handle|input/output error",
    re.IGNORECASE,
)
# The trainer says these in one line, as it says mistakes of the user: files are kept, somebody must make room or leave.
_PASSING_REFUSAL = re.compile(r"out of memory|no space left on the device|another process is training", re.IGNORECASE)

_PASSING_ERRNO = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


@dataclass(frozen=True)
class Cause:
    """What went wrong, in a line; `passing`: another try may well succeed."""

    message: str
    passing: bool


def of_exit(code: int, message: str) -> Cause:
    """Why a process ended with `code` (negative: by that signal), where `message` is the last error that it printed."""
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number:  # by the kernel for memory, by a scheduler for the machine, by somebody's hand
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        return Cause(f"ended by {name}" + (f": {message}" if message else ""), passing=True)
    if code == 0:
        return Cause(f"ended without a result that fits the run{': ' + message if message else ''}", passing=False)
    known = _PASSING_REFUSAL if code == USER_ERROR else _PASSING_ERROR
    passing = code == os.EX_TEMPFAIL or known.search(message) is not None
    return Cause(message or f"exit status {code} without a message", passing)


def of_error(error: BaseException) -> Cause | None:
    """Why the runner's own files could not be written or read; None for an error that is about something else."""
    source = error if isinstance(error, OSError) else error.__cause__
    return Cause(str(error), passing=source.errno in _PASSING_ERRNO) if isinstance(source, OSError) else None
