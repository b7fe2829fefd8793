"""What is tried again: what came from outside, or may pass; never a mistake of the user's."""

import errno
import os
import signal

import pytest

from experiments.runner.causes import Cause, of_error, of_exit
from newrelax.cli import USER_ERROR
from newrelax.errors import UserError

CRASH = 1


@pytest.mark.parametrize(
    ("code", "message", "passing"),
    [
        pytest.param(-signal.SIGKILL, "", True, id="killed"),
        pytest.param(128 + signal.SIGTERM, "stopped by SIGTERM", True, id="ended gently from outside"),
        pytest.param(os.EX_TEMPFAIL, "the device is away", True, id="says itself that it may pass"),
        pytest.param(CRASH, "torch.OutOfMemoryError: CUDA out of memory.", True, id="no memory"),
        pytest.param(CRASH, "OSError: [Errno 116] Stale file handle", True, id="network file system"),
        pytest.param(CRASH, "ValueError: shapes differ", False, id="crash"),
        pytest.param(CRASH, "", False, id="silent crash"),
        pytest.param(0, "", False, id="no result"),
        pytest.param(0, "timed out", False, id="no result, whatever it says"),
        pytest.param(USER_ERROR, "--lr: expected above 0, got -1", False, id="mistake"),
        pytest.param(USER_ERROR, "mine:data failed: connection refused", False, id="mistake that sounds passing"),
        pytest.param(USER_ERROR, "no space left on the device while writing checkpoint.pt", True, id="full disk"),
        pytest.param(USER_ERROR, "another process is training in runs/a", True, id="folder in use"),
    ],
)
def test_what_an_exit_means(code: int, message: str, passing: bool) -> None:
    cause = of_exit(code, message)
    assert cause.passing is passing
    assert message in cause.message
    assert cause.message


@pytest.mark.parametrize(
    ("number", "passing"), [(errno.ENOSPC, True), (errno.EACCES, False)], ids=["disk is full", "not permitted"]
)
def test_what_an_error_of_the_runner_s_own_files_means(number: int, passing: bool) -> None:
    source = OSError(number, os.strerror(number))
    told = UserError("cannot write")
    told.__cause__ = source
    assert of_error(source) == Cause(str(source), passing)
    assert of_error(told) == Cause("cannot write", passing)


def test_an_error_about_something_else_has_no_cause() -> None:
    assert of_error(UserError("this file system can't lock files")) is None
