"""Deciding a whole test set: the ladder over all examples, on several processes, taken up where it was left."""

from __future__ import annotations

import multiprocessing
import queue
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from newrelax.precision import full_precision
from newrelax.registry import Registry
from plugin.certification.bounding import Bounding
from plugin.certification.certifiers.base import Example, Question
from plugin.certification.certifiers.ladder import Ladder
from plugin.certification.certifiers.rigorous import rigorous
from plugin.certification.region import Region
from plugin.certification.verdicts import Line, Store, Summary

CHUNK = 100
"""Examples that climb together: as many as the attack takes at a time, few enough that a kill loses little."""
SHARED_CHUNK = 20
"""The same with several processes, so that none waits long for another at the end."""


@dataclass(frozen=True)
class Work:
    """What is asked of every example, in words that another process can be given.

    ladder: as people spell it. plugins: files whose nouns it may name. seconds: for one example on rungs that take one at a
    time. rigorous: whether proofs count only if they hold for the network as it runs.
    """

    model: nn.Module
    eps: float
    region: Region = field(default_factory=Region)
    ladder: str = "IBP,CROWN-IBP-R,CROWN,alpha-CROWN,exact"
    seconds: float = 60.0
    plugins: tuple[str, ...] = ()
    engine: str = "newrelax"
    memory: int | None = None
    seed: int = 0
    rigorous: bool = False

    @cached_property
    def question(self) -> Question:
        registry = Registry.load(self.plugins)
        bounding = Bounding(self.engine, self.memory, registry.operators)
        return Question(self.model, self.eps, self.region, registry, bounding, self.seed)

    @cached_property
    def rungs(self) -> Ladder:
        ladder = Ladder.read(self.ladder, self.question.registry)
        return rigorous(ladder) if self.rigorous else ladder

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made from the words: another process makes its own."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def decide(self, examples: Sequence[Example]) -> Iterator[Example]:
        """The examples as they are decided."""
        with full_precision():
            yield from self.rungs.climb(self.question, examples, self.seconds)

    def facts(self) -> dict[str, Any]:
        """What verdicts depend on, beside network and data."""
        return {"eps": self.eps, "ladder": self.rungs.label, "timeout": self.seconds, "engine": self.engine, "seed": self.seed}


def decide_all(work: Work, x: Tensor, y: Tensor, store: Store, *, jobs: int = 1, progress: bool = True) -> Summary:
    """Decides every example x [n, …] of class y [n] that the store has no verdict of; returns what all add up to.

    jobs: processes; each verdict is in the store as soon as it is known. progress: a bar with the count of each verdict.
    """
    left = [number for number in range(len(y)) if number not in store.lines]
    counts = Counter(line.verdict for line in store.lines.values())
    silent = not (progress and sys.stderr.isatty())
    with tqdm(total=len(y), initial=len(y) - len(left), unit="image", leave=False, disable=silent) as bar:
        for line in _alone(work, x, y, left) if jobs == 1 else _shared(work, x, y, left, jobs):
            store.add([line])
            counts[line.verdict] += 1
            bar.set_postfix(counts, refresh=False)
            bar.update()
    return Summary.of([store.lines[number] for number in range(len(y))], [rung.name for rung in work.rungs.rungs])


def _chunks(x: Tensor, y: Tensor, numbers: Sequence[int], size: int) -> Iterator[list[Example]]:
    for i in range(0, len(numbers), size):
        yield [Example(n, x[n : n + 1], y[n : n + 1]) for n in numbers[i : i + size]]


def _alone(work: Work, x: Tensor, y: Tensor, numbers: Sequence[int]) -> Iterator[Line]:
    for chunk in _chunks(x, y, numbers, CHUNK):
        yield from map(Line.of, work.decide(chunk))


def _shared(work: Work, x: Tensor, y: Tensor, numbers: Sequence[int], jobs: int) -> Iterator[Line]:
    """The same by processes that take chunks from one queue and put lines into another."""
    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    for chunk in _chunks(x, y, numbers, SHARED_CHUNK):
        tasks.put([(each.number, each.x.numpy(), each.y.numpy()) for each in chunk])
    for _ in range(jobs):
        tasks.put(None)
    processes = [context.Process(target=_serve, args=(work, tasks, results), daemon=True) for _ in range(jobs)]
    for process in processes:
        process.start()
    missing = len(numbers)
    try:
        while missing:
            try:
                found = results.get(timeout=1.0)
            except queue.Empty:
                if not any(process.is_alive() for process in processes):
                    raise RuntimeError("every worker process ended before its work was done") from None
                continue
            if isinstance(found, BaseException):
                raise found
            missing -= 1
            yield found
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(work: Work, tasks: Any, results: Any) -> None:
    """A worker process: one thread, quiet, until there are no more tasks."""
    torch.set_num_threads(1)
    try:
        for chunk in iter(tasks.get, None):
            examples = [Example(number, torch.from_numpy(x), torch.from_numpy(y)) for number, x, y in chunk]
            for example in work.decide(examples):
                results.put(Line.of(example))  # tensors would need this process for as long as they are not read
    except BaseException as problem:
        results.put(problem)
