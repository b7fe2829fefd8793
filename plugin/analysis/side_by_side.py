"""Independent pieces of work side by side, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch

from newrelax.precision import full_precision
from plugin.process.allocator import keep_freed_memory

Task = TypeVar("Task")
Result = TypeVar("Result")
Tick = Callable[[int], None]
"""Is told how many evaluations were made since it was called last."""

MOST = 4
"""Processes that are started unless more are asked for: each holds a copy of torch, some 600 MB."""


class FieldsOnly:
    """A dataclass that is handed to another process as its fields: what it has made of them is made there again."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def default_jobs(device: torch.device) -> int:
    """As many processes as torch would use threads here, up to MOST; one where a GPU works."""
    return 1 if device.type == "cuda" else min(MOST, torch.get_num_threads())


def side_by_side(
    work: Callable[[Task, Tick], Result], tasks: Sequence[Task], *, jobs: int = 1, tick: Tick = lambda n: None
) -> Iterator[tuple[int, Result]]:
    """The place of each task and its result, as they become known; with one job in the tasks' order.

    Each works with one thread, here too: threads that share small tensors mostly wait for each other, and results that do
    not depend on their number are the same on any machine. Processes end with the caller, however that ends, and when the
    iterator is closed.

    Args:
        work: called in another process unless it cannot be pickled, as are the tasks; then, as with one job, it is called here.
        tick: hears of progress, which `work` reports to the tick that it is given.

    Raises:
        RuntimeError: every process was ended from outside. Otherwise what `work` raises.
    """
    jobs = min(jobs, len(tasks))
    packed = _packed(work, tasks) if jobs > 1 else None
    if packed is None:
        yield from _alone(work, tasks, tick)
    else:
        yield from _shared(packed, len(tasks), jobs, tick)


@dataclass(frozen=True)
class _Ticked:
    count: int


@dataclass(frozen=True)
class _Done(Generic[Result]):
    place: int
    result: Result


@dataclass(frozen=True)
class _Failed:
    problem: BaseException


def _packed(work: Any, tasks: Sequence[Any]) -> bytes | None:
    """As bytes: handing tensors over would move those of this process to shared memory. None where something has no words."""
    try:
        return pickle.dumps((work, list(tasks)))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def _alone(work: Callable[[Task, Tick], Result], tasks: Sequence[Task], tick: Tick) -> Iterator[tuple[int, Result]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for place, task in enumerate(tasks):
            yield place, work(task, tick)
    finally:
        torch.set_num_threads(threads)


def _shared(packed: bytes, count: int, jobs: int, tick: Tick) -> Iterator[tuple[int, Any]]:
    context = multiprocessing.get_context("spawn")
    places, messages = context.Queue(), context.Queue()
    for place in range(count):
        places.put(place)
    for _ in range(jobs):
        places.put(None)
    processes = [context.Process(target=_serve, args=(packed, places, messages), daemon=True) for _ in range(jobs)]
    for process in processes:
        process.start()
    try:
        while count:
            try:
                message = messages.get(timeout=1.0)
            except queue.Empty:
                if not any(process.is_alive() for process in processes):
                    raise RuntimeError("every worker process ended before its work was done") from None
                continue
            if isinstance(message, _Ticked):
                tick(message.count)
            elif isinstance(message, _Failed):
                raise message.problem
            else:
                count -= 1
                yield message.place, message.result
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(packed: bytes, places: Any, messages: Any) -> None:
    """A worker process: takes the place of one task after another, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        work, tasks = pickle.loads(packed)
        with full_precision():
            for place in iter(places.get, None):
                messages.put(_Done(place, work(tasks[place], lambda n: messages.put(_Ticked(n)))))
    except BaseException as problem:
        messages.put(_Failed(problem))


def _end_with_parent() -> None:
    """A caller that is killed cannot end its processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
