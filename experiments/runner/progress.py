"""What a person sees while a table runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

from experiments.runner.store import Place
from experiments.runner.worker import Job, Outcome, State, Stop, never

_REFRESH_SECONDS = 0.5
_RUN_BAR = "  {desc} {bar:10} epoch {n_fmt}/{total_fmt} {elapsed}{postfix}"


@dataclass
class _Running:
    """A run under way: when it began, and its bar with the place on the screen."""

    place: Place
    begun: float
    position: int
    bar: tqdm


@dataclass
class Progress:
    """Counts what ends and shows what runs; hears of both as an engine's `Watcher`. A context manager.

    `total`: how many runs there are. `stop`: the wish to stop, which is said once. `stream`: where all goes; `live`: with bars.
    """

    total: int
    stop: Stop = never
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    live: bool | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _running: dict[str, _Running] = field(default_factory=dict)
    _held: dict[str, str] = field(default_factory=dict)
    _stopping: bool = False
    _next_refresh: float = 0.0

    def __post_init__(self) -> None:
        self.live = self.stream.isatty() if self.live is None else self.live
        self._overall = self._bar(0, self.total, unit="run", desc="runs")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for running in self._running.values():
            running.bar.close()
        self._overall.close()

    def started(self, job: Job) -> None:
        """See `Watcher`."""
        taken = {running.position for running in self._running.values()}
        free = next(position for position in range(1, len(taken) + 2) if position not in taken)
        bar = self._bar(free, desc=job.id, bar_format=_RUN_BAR)
        self._running[job.id] = _Running(job.place, time.monotonic(), free, bar)
        if not self.live and job.id not in self._held:
            self._say(f"start    {job.id}")

    def waiting(self, job: Job, message: str) -> None:
        """See `Watcher`."""
        self._leave(job)
        if self._held.get(job.id) != message:  # a busy run is asked for again and again: say it once
            self._say(f"waiting  {job.id}: {message}")
        self._held[job.id] = message

    def ended(self, job: Job, outcome: Outcome) -> None:
        """See `Watcher`."""
        seconds = self._leave(job)
        self._held.pop(job.id, None)
        self.outcomes[job.id] = outcome
        if outcome.state is State.FINISHED:
            detail = f"{_figures(job.place.read_result() or {})}  {seconds:.0f} s"
        else:
            detail = outcome.message
        count = f"[{len(self.outcomes)}/{self.total}]"
        self._say(f"{outcome.state.value:8} {count} {job.id}{'  ' if detail else ''}{detail}")
        self._overall.update()

    def tick(self) -> None:
        """See `Watcher`: tell of a wish to stop, and move the bars now and then."""
        if self.stop() and not self._stopping:
            self._stopping = True
            self._say("stopping: the runs are saving; run the same command again to carry on")
        if self.live and time.monotonic() >= self._next_refresh:
            self._next_refresh = time.monotonic() + _REFRESH_SECONDS
            for running in self._running.values():
                _show_latest(running)

    def _leave(self, job: Job) -> float:
        """Take a run's bar away; the seconds since it began."""
        running = self._running.pop(job.id, None)
        if running is None:
            return 0.0
        running.bar.close()
        return time.monotonic() - running.begun

    def _say(self, line: str) -> None:
        tqdm.write(line, file=self.stream)

    def _bar(self, position: int, total: int | None = None, **looks: str) -> tqdm:
        return tqdm(total=total, position=position, leave=False, file=self.stream, disable=not self.live, **looks)


def _show_latest(running: _Running) -> None:
    """Move a run's bar to the last epoch that it has written down."""
    bar, metrics = running.bar, running.place.read_metrics()
    bar.total = bar.total or running.place.read_epochs()
    if metrics:
        bar.n = metrics[-1].get("epoch", len(metrics))
        bar.set_postfix_str(_figures(metrics[-1]), refresh=False)
    bar.refresh()


def _figures(data: Mapping[str, object]) -> str:
    names = {"natural_accuracy": "natural", "pgd_accuracy": "PGD", "certified_accuracy": "certified"}
    values = ((short, data.get(name)) for name, short in names.items())
    return "  ".join(f"{name} {value:.1%}" for name, value in values if isinstance(value, float))
