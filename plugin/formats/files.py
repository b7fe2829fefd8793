"""Files as they come: compressed or not, there or not, and what is wrong in which line."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from newrelax.errors import UserError


class Misread(Exception):
    """What is wrong in a line of a text. line: from 1, or None where it is the whole text."""

    def __init__(self, line: int | None, words: str) -> None:
        super().__init__(words)
        self.line = line

    def of(self, what: str, path: Path) -> UserError:
        """The same as an error about a file."""
        return UserError(f"{what} {path}{'' if self.line is None else f', line {self.line}'}: {self}")


def read_bytes(what: str, path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz. what: as messages begin.

    Raises:
        UserError: no such file, or one that cannot be read or unpacked.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{what} {path}: no such file") from None
    except OSError as problem:
        raise UserError(f"{what} {path} cannot be read ({problem.strerror or problem})") from problem
    if path.suffix.lower() != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as problem:
        raise UserError(f"{what} {path} cannot be unpacked: the file is damaged ({problem})") from problem


def read_text(what: str, path: Path) -> str:
    """The same as text in UTF-8."""
    try:
        return read_bytes(what, path).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise UserError(f"{what} {path} cannot be read: expected text, got other bytes at {problem.start}") from problem
