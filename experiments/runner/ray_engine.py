"""Runs on a Ray cluster: the optional extra `ray`.

Each run is a Ray task with its own CPUs and GPUs; Ray tries it again, where there is room, when its node is lost or
it fails for a cause that may pass.  The nodes share the output folder; with `gather` they need not: then a run works
in a folder of its node, and its files travel through Ray's object store, what there is of them before, all of them
after.
"""

import io
import os
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.runner.engines import Watcher
from experiments.runner.store import ANALYSIS, RESULT, VERDICTS, Place
from experiments.runner.worker import Job, Outcome, State, Stop, attempt, hold
from newrelax.errors import UserError
from plugin.process.lock import Held

_BUSY_SECONDS = 0.5
_NOTES = ("json", "log", "attempts.jsonl", "failure.json")


class PassingFailure(Exception):
    """A run failed for a cause that may pass: Ray tries it again."""


@dataclass
class RayEngine:
    """Carries out runs as Ray tasks of `cpus` and `gpus` each, on the cluster at `address` or a local one.

    Raises UserError when Ray is not installed, or no node is large enough for a run.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3
    address: str | None = None
    gather: bool = False

    def run(self, jobs: Sequence[Job], watcher: Watcher, stop: Stop) -> None:
        """See `Engine.run`."""
        ray = _import_ray()
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
        try:
            self._check_room(ray)
            with ExitStack() as locks:
                self._run(ray, jobs, watcher, stop, locks)
        finally:
            if ours:
                ray.shutdown()

    def _run(self, ray: Any, jobs: Sequence[Job], watcher: Watcher, stop: Stop, locks: ExitStack) -> None:
        task = ray.remote(_carry_out_gathered if self.gather else _carry_out).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=self.retries,
            retry_exceptions=[PassingFailure],
        )
        flag = _start_flag(ray)
        active: dict[Any, Job] = {}
        for job in jobs:
            if self.gather and (refusal := _prepare_gather(job, locks)):
                watcher.ended(job, refusal)
                continue
            watcher.started(job)
            active[task.remote(job, flag, _pack(job)) if self.gather else task.remote(job, flag)] = job
        stopping = False
        while active:
            if stop() and not stopping:
                stopping = True
                flag.set.remote()
            done, _ = ray.wait(list(active), timeout=0.2)
            for reference in done:
                job = active.pop(reference)
                watcher.ended(job, self._outcome(ray, reference, job))
            watcher.tick()

    def _outcome(self, ray: Any, reference: Any, job: Job) -> Outcome:
        try:
            result = ray.get(reference)
        except (ray.exceptions.RayError, PassingFailure) as error:
            message = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            return Outcome(job.id, State.FAILED, f"gave up after {self.retries + 1} attempts: {message}")
        outcome: Outcome = result[0] if self.gather else result
        if self.gather:
            _unpack(result[1], job)
        return outcome

    def _check_room(self, ray: Any) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes):
            raise UserError(f"no node of the cluster has {self.cpus:g} CPUs and {self.gpus:g} GPUs for one run")


def _start_flag(ray: Any) -> Any:
    """An actor that holds the wish to stop, up and running: every node can ask it."""

    class StopFlag:  # in here, so that it travels by value and its process need not import this project
        def __init__(self) -> None:
            self.wished = False

        def set(self) -> None:
            self.wished = True

        def is_set(self) -> bool:
            return self.wished

    flag = ray.remote(num_cpus=0)(StopFlag).remote()
    ray.get(flag.is_set.remote())
    return flag


def _ask(flag: Any) -> Stop:
    """A stop signal that asks the actor, without waiting for it; one whose runner is gone never comes."""
    import ray

    question = None

    def stop() -> bool:
        nonlocal question
        question = question or flag.is_set.remote()
        if not ray.wait([question], timeout=0)[0]:
            return False
        try:
            answer = bool(ray.get(question))
        except ray.exceptions.RayError:
            answer = False
        question = None
        return answer

    return stop


def _import_ray() -> Any:
    # Under `uv run` Ray would start its workers by another `uv run`; the environment is there already. Read at import.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs Ray: install the extra, `pip install 'newrelax[ray]'`") from error
    return ray


def _carry_out(job: Job, flag: Any) -> Outcome:
    """On a node: the run in its own folder; a trainer that outlived its task is waited for."""
    import ray

    if ray.get(flag.is_set.remote()):
        return Outcome(job.id, State.STOPPED, "not started")
    # Ray's workers block SIGINT, and a program that they start would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    stop = _ask(flag)
    while (outcome := attempt(job, stop)).state is State.BUSY and not stop():
        time.sleep(_BUSY_SECONDS)
    if outcome.state is State.PASSING:
        raise PassingFailure(outcome.message)
    return outcome


def _carry_out_gathered(job: Job, flag: Any, files: bytes) -> tuple[Outcome, bytes]:
    """On a node: the run in a folder of the node, begun from `files`; its files afterwards."""
    home = Path(job.table)
    # The same place at each attempt, so that one on the same node goes on from its last checkpoint.
    scratch = Path(tempfile.gettempdir()) / "newrelax-runs" / home.as_posix().strip("/").replace("/", "_")

    def moved(command: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part.replace(str(home), str(scratch)) for part in command)

    away = replace(
        job,
        table=str(scratch),
        train=moved(job.train),
        analyze=moved(job.analyze),
        decide=moved(job.decide),
    )
    if not away.place.folder.exists():
        _unpack(files, away)
    outcome = _carry_out(away, flag)
    files = _pack(away)
    if outcome.state in (State.FINISHED, State.SKIPPED):
        shutil.rmtree(away.place.folder)
        for kind in _NOTES:
            away.place.note(kind).unlink(missing_ok=True)
    return outcome, files


def _prepare_gather(job: Job, locks: ExitStack) -> Outcome | None:
    """Hold the run's lock here, where its files will arrive; an outcome when there is nothing to do or no lock."""
    try:
        locks.enter_context(hold(job.place))
    except Held:
        return Outcome(job.id, State.STOPPED, "another runner is at it; run again when it is done")
    settings = job.place.read_settings()
    if settings == job.settings and job.is_finished():
        return Outcome(job.id, State.SKIPPED)
    return None


def _pack(job: Job) -> bytes:
    """A run's folder and notes as a tar archive; empty when there are none."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if job.place.folder.exists():
            archive.add(job.place.folder, "folder")
        for kind in _NOTES:
            if job.place.note(kind).exists():
                archive.add(job.place.note(kind), f"note.{kind}")
    return buffer.getvalue()


def _unpack(files: bytes, job: Job) -> None:
    """Put a run's files in place one by one, the results last: a kill on the way leaves an unfinished run."""
    place = Place(Path(job.table), job.id)
    notes = place.note("json").parent
    notes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incoming-", dir=notes) as incoming:
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            archive.extractall(incoming, filter="data")
        for kind in _NOTES:
            if (Path(incoming) / f"note.{kind}").exists():
                (Path(incoming) / f"note.{kind}").replace(place.note(kind))
        arrived = Path(incoming) / "folder"
        paths = [path.relative_to(arrived) for path in arrived.rglob("*") if path.is_file()]
        for path in sorted(paths, key=lambda path: str(path) in (RESULT, ANALYSIS) or path.name == VERDICTS):
            (place.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (arrived / path).replace(place.folder / path)
