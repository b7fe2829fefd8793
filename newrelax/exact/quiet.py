"""Silence for libraries that write to the process's standard output past Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_output() -> Iterator[None]:
    """What is written inside to file descriptor 1 goes nowhere. HiGHS prints lines of its own now and then, asked or not.

    Of the whole process: other threads' output is lost as well while it lasts.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
