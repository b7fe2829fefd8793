"""The lock of a file: held once, inherited by a child, gone with the last holder."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from plugin.process.lock import Held, locked


def test_is_held_once_and_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as lock:
        assert lock.binding
        with pytest.raises(Held, match=f"process {os.getpid()} on "), locked(path):
            pass
    with locked(path):
        pass


def test_a_child_that_is_given_the_lock_holds_it_on(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as lock:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock.descriptor,))
    try:
        with pytest.raises(Held), locked(path):
            pass
    finally:
        child.kill()
        child.wait()
    with locked(path):
        pass


def test_a_child_that_is_not_given_it_does_not(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with locked(path) as lock:
            assert lock.binding
    finally:
        child.kill()
        child.wait()


def test_a_file_system_without_locks_is_said_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock") as lock:
        assert not lock.binding
