"""A run of a table as the commands that carry it out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.runner.grid import Run, text_of
from experiments.runner.store import Place
from experiments.runner.worker import Job


@dataclass(frozen=True)
class Commands:
    """The programs that carry out a run; tests put their own in place."""

    train: tuple[str, ...] = (sys.executable, "-m", "plugin.train")
    analyze: tuple[str, ...] = (sys.executable, "-m", "plugin.analyze")
    decide: tuple[str, ...] = (sys.executable, "-m", "plugin.evaluate")


PROGRAMS = Commands()


def make_job(
    run: Run,
    out: Path,
    commands: Commands = PROGRAMS,
    *,
    data_dir: Path | None = None,
    device: str | None = None,
    threads: int = 1,
) -> Job:
    """A run as commands.  `threads` of each process is fixed, because float sums depend on it."""
    place = Place(out / run.table, run.id)
    data = ("--data-dir", str(data_dir)) if data_dir is not None else ()
    where = ("--device", device) if device is not None else ()
    analyze: tuple[str, ...] = ()
    if run.analyze:
        analyze = (
            *commands.analyze,
            "--run",
            str(place.folder),
            "--methods",
            ",".join(run.analyze),
            "--seed",
            str(run.seed),
            *(word for name, value in run.protocol.chosen().items() for word in (f"--{name}", text_of(value))),
            *data,
            *where,
        )
    decide: tuple[str, ...] = ()
    if run.decision:
        limit = ("--limit", str(run.decision.limit)) if run.decision.limit is not None else ()
        decide = (
            *commands.decide,
            "--run",
            str(place.folder),
            "--complete",
            "--ladder",
            run.decision.ladder,
            "--timeout",
            text_of(run.decision.timeout),
            *limit,
            *data,
            *where,
        )
    return Job(
        id=run.id,
        table=str(out / run.table),
        settings=run.settings(),
        train=(*commands.train, *run.arguments(), "--out", str(place.folder), *data, *where, "--resume"),
        analyze=analyze,
        decide=decide,
        decision=run.decision,
        environment={"OMP_NUM_THREADS": str(threads)},
    )
