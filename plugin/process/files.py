"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from newrelax.errors import UserError

TEMPORARY_SUFFIX = ".partial"


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`; whoever is killed at any instant leaves the old or the new file.

    Raises:
        UserError: the device is full; the unfinished file is removed and the old one kept.
    """
    partial = path.with_name(path.name + TEMPORARY_SUFFIX)
    with no_space_is_user_error(path):
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
    _sync_folder(path.parent)


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Like `write_atomically`, with `values` as indented JSON."""
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


def write_output(path: Path, text: str) -> None:
    """Writes a file whole or not at all, following links; what is no file (a pipe, /dev/stdout) is written through.

    Raises:
        UserError: that cannot be done.
    """
    # Replacing /dev/stdout, as an atomic write would, takes it from every program on the machine.
    stream = path.parent in (Path("/dev"), Path("/dev/fd")) or (path.exists() and not path.is_file())
    try:
        if stream:
            with open(path, "a") as file:
                file.write(text)
        else:
            write_atomically(path.resolve(), text.encode())
    except OSError as problem:
        raise UserError(f"cannot write {path}: {problem.strerror or problem}") from problem


@contextmanager
def no_space_is_user_error(path: Path) -> Iterator[None]:
    """Turns "no space left on device" into one line that says where and what is left."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space left on the device while writing {path}; what was there before is kept: "
            "free some space, then continue with --resume"
        ) from problem


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power cut; not every file system can do this.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
