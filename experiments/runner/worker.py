"""One attempt at one run, as a process of its own, safe against kills of anyone at any moment.

A run is locked by a file whose lock the trainer inherits, so it lives as long as the runner *or* its trainer does and dies with
the last of them. A runner that is killed leaves its trainers working and locked; whoever comes next sees them busy and waits
for what they finish.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from experiments.runner import causes
from experiments.runner.grid import Decision
from experiments.runner.store import Place
from newrelax.errors import UserError
from plugin.process.files import write_json
from plugin.process.lock import Held, Lock, locked

Stop = Callable[[], bool]
"""Asked several times a second: is it time to stop?"""


class State(Enum):
    """How an attempt ended."""

    FINISHED = "finished"
    SKIPPED = "skipped"  # was finished before
    FAILED = "failed"  # for good
    PASSING = "passing"  # failed for a cause that may pass
    STOPPED = "stopped"  # asked to
    BUSY = "busy"  # somebody else is at it


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, and the last line of what went wrong."""

    id: str
    state: State
    message: str = ""

    @classmethod
    def of(cls, id: str, cause: causes.Cause) -> Outcome:
        """The outcome of an attempt that ended for a cause."""
        return cls(id, State.PASSING if cause.passing else State.FAILED, cause.message)


@dataclass(frozen=True)
class Step:
    """A command, and whether its result is there."""

    command: tuple[str, ...]
    is_done: Callable[[], bool]


@dataclass(frozen=True)
class Job:
    """All that a process on any machine needs for a run: plain data, picklable.

    `train` and then `analyze` and `decide`, when there are any, are commands that go on with whatever the folder holds; each is
    run until its result is there.  `decision`: what `decide` is asked.  `environment` is laid over the process's own.
    """

    id: str
    table: str
    settings: Mapping[str, Any]
    train: tuple[str, ...]
    analyze: tuple[str, ...] = ()
    decide: tuple[str, ...] = ()
    decision: Decision | None = None
    environment: Mapping[str, str] | None = None

    @property
    def place(self) -> Place:
        """The run's files."""
        return Place(Path(self.table), self.id)

    @property
    def steps(self) -> list[Step]:
        """The commands in their order."""
        place, decision = self.place, self.decision
        steps = [Step(self.train, lambda: place.read_result() is not None)]
        if self.analyze:
            steps.append(Step(self.analyze, lambda: place.read_analysis() is not None))
        if decision is not None:
            steps.append(Step(self.decide, lambda: place.read_verdicts(decision) is not None))
        return steps

    def is_finished(self) -> bool:
        """True when the result of every command is there."""
        return all(step.is_done() for step in self.steps)


def never() -> bool:
    """A stop signal that never comes."""
    return False


def attempt(job: Job, stop: Stop = never, *, grace: float = 30.0) -> Outcome:
    """Try a run once: take its lock, skip what is finished, resume what was begun, run the rest.

    Once `stop` is true, the trainer gets SIGINT (it saves), after `grace` seconds SIGTERM, then SIGKILL.
    Raises UserError when the file system has no locks.
    """
    try:
        with hold(job.place) as lock:
            return _attempt_locked(job, lock, stop, grace)
    except Held as held:
        return Outcome(job.id, State.BUSY, f"held by {held.holder}")
    except (OSError, UserError) as error:
        if (cause := causes.of_error(error)) is None:
            raise
        return Outcome.of(job.id, cause)


@contextmanager
def hold(place: Place) -> Iterator[Lock]:
    """Hold the run's lock. Raises Held when somebody else does, UserError when the file system has no locks."""
    path = place.note("lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path) as lock:
        if not lock.binding:
            raise UserError(f"{path}: this file system can't lock files, and runs need it; choose another --out")
        yield lock


def _attempt_locked(job: Job, lock: Lock, stop: Stop, grace: float) -> Outcome:
    place = job.place
    if (settings := place.read_settings()) is None:
        write_json(place.note("json"), job.settings)
    elif settings != dict(job.settings):
        return Outcome(job.id, State.FAILED, _differences(settings, job.settings, place.folder))
    if job.is_finished():
        return Outcome(job.id, State.SKIPPED)
    outcome = Outcome(job.id, State.FINISHED)
    for step in job.steps:
        if outcome.state is State.FINISHED and not step.is_done():
            outcome = _run(job, step, lock, stop, grace)
    return _noted(place, outcome)


def _run(job: Job, step: Step, lock: Lock, stop: Stop, grace: float) -> Outcome:
    place = job.place
    started = time.time()
    with place.note("log").open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(job.environment or {})},
            pass_fds=(lock.descriptor,),
            start_new_session=True,  # a Ctrl-C in the terminal is the runner's to pass on, once
        )
        stopped = _wait(process, stop, grace)
    code = process.returncode
    _append(place.note("attempts.jsonl"), {"started": started, "ended": time.time(), "returncode": code})
    if step.is_done():
        return Outcome(job.id, State.FINISHED)
    if stopped:
        return Outcome(job.id, State.STOPPED, "stopped; run again to resume")
    return Outcome.of(job.id, causes.of_exit(code, _last_error(place.note("log"), begin)))


def _wait(process: subprocess.Popen[bytes], stop: Stop, grace: float) -> bool:
    """Wait for the process; True when it was told to stop."""
    while process.poll() is None and not stop():
        _sleep_until_exit(process, 0.2)
    if process.poll() is not None:
        return False
    for number, patience in ((signal.SIGINT, grace), (signal.SIGTERM, grace / 3), (signal.SIGKILL, None)):
        process.send_signal(number)
        if _sleep_until_exit(process, patience):
            break
    return True


def _sleep_until_exit(process: subprocess.Popen[bytes], seconds: float | None) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _noted(place: Place, outcome: Outcome) -> Outcome:
    """Leave a failure for the report to show, or take an old one away."""
    path = place.note("failure.json")
    if outcome.state in (State.FAILED, State.PASSING):
        write_json(path, {"message": outcome.message})
    elif outcome.state is State.FINISHED:
        path.unlink(missing_ok=True)
    return outcome


def _last_error(log: Path, begin: int) -> str:
    """The last `error: …` line of an attempt's log, or its last line at all."""
    with log.open("rb") as file:
        file.seek(max(begin, file.seek(0, os.SEEK_END) - 20_000))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    errors = [line for line in lines if re.match(r"(?i)error\b", line)]
    return re.sub(r"(?i)^error:\s*", "", (errors or lines or [""])[-1])[:300]


def _append(path: Path, data: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(data) + "\n")


def _differences(held: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> str:
    keys = [key for key in wanted if held.get(key) != wanted[key]]
    changes = "; ".join(f"{key} {held.get(key)!r}, now {wanted[key]!r}" for key in keys)
    return f"{folder} holds a run with other settings ({changes}): move it away or choose another --out"
