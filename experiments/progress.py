"""What a person sees while a table runs: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from experiments.store import Place
from experiments.worker import Job, Outcome, State

_REDRAW_SECONDS = 0.5
_CLEAR_LINE = "\x1b[2K"


@dataclass
class Progress:
    """Counts what ends and shows what runs; hears of both as an engine's `Watcher`.

    `echo` prints a line.  `live`: redraw a table in place instead of adding lines for starts and retries.
    """

    total: int
    echo: Callable[[str], None]
    live: bool = False
    width: int = 100
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _running: dict[str, tuple[Job, float]] = field(default_factory=dict)
    _held: dict[str, str] = field(default_factory=dict)
    _drawn: int = 0
    _next_draw: float = 0.0

    def started(self, job: Job) -> None:
        """See `Watcher`."""
        self._running[job.id] = (job, time.monotonic())
        if not self.live and job.id not in self._held:
            self._say(f"start    {job.id}")

    def waiting(self, job: Job, message: str) -> None:
        """See `Watcher`."""
        self._running.pop(job.id, None)
        if self._held.get(job.id) != message:  # a busy run is asked for again and again: say it once
            self._say(f"waiting  {job.id}: {message}")
        self._held[job.id] = message

    def ended(self, job: Job, outcome: Outcome) -> None:
        """See `Watcher`."""
        _, begun = self._running.pop(job.id, (job, time.monotonic()))
        self._held.pop(job.id, None)
        self.outcomes[job.id] = outcome
        if outcome.state is State.FINISHED:
            detail = f"{_figures(job.place.read_result() or {})}  {time.monotonic() - begun:.0f} s"
        else:
            detail = outcome.message
        count = f"[{len(self.outcomes)}/{self.total}]"
        self._say(f"{outcome.state.value:8} {count} {job.id}{'  ' if detail else ''}{detail}")

    def tick(self) -> None:
        """See `Watcher`: redraw the live table now and then."""
        if self.live and time.monotonic() >= self._next_draw:
            self._next_draw = time.monotonic() + _REDRAW_SECONDS
            self._draw(self._rows())

    def close(self) -> None:
        """Take the live table away."""
        if self.live:
            self._draw([])

    def _rows(self) -> list[str]:
        rows = [f"{len(self.outcomes)} of {self.total} over, {len(self._running)} running"]
        for job, begun in self._running.values():
            rows.append(f"  {job.id:45} {_latest(job.place):40} {time.monotonic() - begun:7.0f} s")
        return rows

    def _say(self, line: str) -> None:
        self._draw([])
        self.echo(line)
        self._next_draw = 0.0

    def _draw(self, rows: Iterable[str]) -> None:
        if not self.live:
            return
        lines = [row[: self.width] for row in rows]
        if self._drawn:
            self.echo(f"\x1b[{self._drawn}F\x1b[J\x1b[1A")  # back to the table's first line, erase to the end
        for line in lines:
            self.echo(_CLEAR_LINE + line)
        self._drawn = len(lines)


def _latest(place: Place) -> str:
    """The last epoch's figures of a run that is under way."""
    metrics = place.read_metrics()
    return f"epoch {metrics[-1].get('epoch', len(metrics))}  {_figures(metrics[-1])}" if metrics else "starting"


def _figures(data: dict[str, object]) -> str:
    names = {"natural_accuracy": "natural", "pgd_accuracy": "PGD", "certified_accuracy": "certified"}
    values = {short: data[name] for name, short in names.items() if isinstance(data.get(name), float)}
    return "  ".join(f"{name} {value:.1%}" for name, value in values.items())
