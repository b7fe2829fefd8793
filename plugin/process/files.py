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
    """Replaces ``path`` by ``content``; whoever is killed at any instant leaves the old or the new file.

    Raises UserError when the device is full; the unfinished file is removed and the old one kept.
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
    """Like :func:`write_atomically`, with ``values`` as indented JSON."""
    write_atomically(path, (json.dumps(values, indent=2) + "\n").encode())


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
