"""Engines: where runs are carried out.  The default one starts local processes."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

from experiments.runner.worker import Job, Outcome, State, Stop, attempt


class Watcher(Protocol):
    """Who hears of the runs' progress, on the thread that called `Engine.run`."""

    def started(self, job: Job) -> None:
        """An attempt begins."""

    def waiting(self, job: Job, message: str) -> None:
        """The run will be tried again: it failed for a passing cause, or somebody else is at it."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """The run is over: finished, skipped, failed for good or stopped."""

    def tick(self) -> None:
        """Called several times a second."""


class Engine(Protocol):
    """Carries out runs until each is over, each at most once at a time, failures for a passing cause again."""

    def run(self, jobs: Sequence[Job], watcher: Watcher, stop: Stop) -> None:
        """Return when every job has ended (see `Watcher.ended`); soon after `stop()` turns true."""


@dataclass
class _Waiting:
    job: Job
    tries: int = 0
    not_before: float = 0.0


@dataclass
class LocalEngine:
    """Local processes, `slots` at a time.

    Each slot is a set of environment variables (such as its CUDA device).  A run that fails for a passing cause is
    tried `retries` more times, after `pause` seconds, then twice as long and so on.  `grace`: see `attempt`.
    """

    slots: Sequence[dict[str, str]]
    retries: int = 3
    pause: float = 5.0
    busy_pause: float = 0.5
    grace: float = 30.0
    _free: deque[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._free = deque(self.slots)

    def run(self, jobs: Sequence[Job], watcher: Watcher, stop: Stop) -> None:
        """See `Engine.run`."""
        waiting = deque(_Waiting(job) for job in jobs)
        active: dict[Future[Outcome], tuple[_Waiting, dict[str, str]]] = {}
        with ThreadPoolExecutor(max_workers=len(self.slots)) as pool:
            while active or (waiting and not stop()):
                while self._free and not stop() and (entry := _next_due(waiting)):
                    slot = self._free.popleft()
                    job = replace(entry.job, environment={**slot, **(entry.job.environment or {})})
                    watcher.started(entry.job)
                    active[pool.submit(attempt, job, stop, grace=self.grace)] = (entry, slot)
                done, _ = wait(active, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in done:
                    entry, slot = active.pop(future)
                    self._free.append(slot)
                    self._settle(entry, future.result(), waiting, watcher)
                if not active and waiting:
                    time.sleep(0.05)
                watcher.tick()
        for entry in waiting:
            watcher.ended(entry.job, Outcome(entry.job.id, State.STOPPED, "not started"))

    def _settle(self, entry: _Waiting, outcome: Outcome, waiting: deque[_Waiting], watcher: Watcher) -> None:
        if outcome.state is State.BUSY:
            entry.not_before = time.monotonic() + self.busy_pause
        elif outcome.state is State.PASSING and entry.tries < self.retries:
            entry.not_before = time.monotonic() + self.pause * 2**entry.tries
            entry.tries += 1
        else:
            if outcome.state is State.PASSING:
                message = f"gave up after {entry.tries + 1} attempts: {outcome.message}"
                outcome = Outcome(outcome.id, State.FAILED, message)
            watcher.ended(entry.job, outcome)
            return
        watcher.waiting(entry.job, outcome.message)
        waiting.append(entry)


def _next_due(waiting: deque[_Waiting]) -> _Waiting | None:
    """Take out the first run that may start now."""
    now = time.monotonic()
    for index, entry in enumerate(waiting):
        if entry.not_before <= now:
            del waiting[index]
            return entry
    return None
