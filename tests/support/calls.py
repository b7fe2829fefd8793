"""Command lines called in this process, with what they print."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Called:
    exit_code: int
    output: str


def invoke(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> Called:
    """The exit code of `main(arguments)`, and stdout and stderr as one text."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = main(arguments)
    return Called(code, text.getvalue())
