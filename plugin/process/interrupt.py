"""Ctrl-C and SIGTERM: finish the step, save, leave; a second signal leaves at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

Handler = Callable[[int, FrameType | None], object] | int | None
"""What `signal.signal` takes and gives back."""


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had. `signal` is the signal's number."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signal = signum

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, as shells have it."""
        return 128 + self.signal


class StopRequest:
    """Remembers that a signal asked to stop. A context manager, in effect on the main thread only.

    At first a signal is only remembered in `signal`; after `strike_now` it raises
    `Interrupted` where it strikes.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._deferred = True
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def strike_now(self) -> None:
        """From here on nothing needs saving: raises `Interrupted` for a signal that came or comes."""
        self._deferred = False
        if self.signal is not None:
            self._raise(self.signal)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        # The next signal kills: files are replaced atomically, so that loses nothing but time.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        if not self._deferred:
            self._raise(number)

    @staticmethod
    def _raise(number: int) -> None:
        raise Interrupted(number, f"stopped by {signal.Signals(number).name}")
