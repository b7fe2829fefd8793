"""Command line: run a table, on this machine or on a Ray cluster.

    python -m experiments.run table2 --only 'model=CONV,dataset=mnist' --scale 0.05

Each run is a `python -m plugin.train` in a folder of its own.  Asking again carries on: what is finished is skipped,
what was interrupted is resumed.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from experiments.engines import Engine, LocalEngine
from experiments.grid import Run, expand, parse_only
from experiments.progress import Progress
from experiments.store import Place
from experiments.table_file import change, load_table
from experiments.worker import Job, Outcome, State
from newrelax.cli import run_command
from newrelax.errors import UserError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Commands:
    """The programs that carry out a run; tests put their own in place."""

    train: tuple[str, ...] = (sys.executable, "-m", "plugin.train")
    analyze: tuple[str, ...] = (sys.executable, "-m", "plugin.analyze")


def make_job(
    run: Run,
    out: Path,
    commands: Commands = Commands(),
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
            *data,
            *where,
        )
    return Job(
        id=run.id,
        table=str(out / run.table),
        settings=run.settings(),
        train=(*commands.train, *run.arguments(), "--out", str(place.folder), *data, *where, "--resume"),
        analyze=analyze,
        environment={"OMP_NUM_THREADS": str(threads)},
    )


def local_slots(jobs: int | None, cpus: int, gpus: float) -> list[dict[str, str]]:
    """One environment per run at a time: as many as `jobs`, or as the machine's cores or GPUs hold.

    Raises UserError when `gpus` per run are asked for and the machine has fewer.
    """
    if gpus <= 0:
        return [{} for _ in range(jobs or max(1, len(os.sched_getaffinity(0)) // cpus))]
    devices = _gpu_names()
    if gpus > len(devices):
        raise UserError(f"--gpus {gpus:g}: this machine has {len(devices)} GPU(s); ask for fewer or leave it out")
    if gpus >= 1:
        sets = [devices[i : i + int(gpus)] for i in range(0, len(devices) - int(gpus) + 1, int(gpus))]
    else:
        sets = [[name] for _ in range(int(1 / gpus)) for name in devices]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(names)} for names in sets[:jobs]]


def _gpu_names() -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True)
    return listing.stdout.decode().split()


def run_jobs(jobs: Sequence[Job], engine: Engine, *, live: bool | None = None) -> Mapping[str, Outcome]:
    """Carry out jobs with progress on the console; the first Ctrl-C or SIGTERM ends them gently.

    Returns each job's outcome by id.
    """
    on_terminal = sys.stderr.isatty() if live is None else live
    width = shutil.get_terminal_size((100, 24)).columns - 1
    progress = Progress(len(jobs), lambda line: click.echo(line, err=True), live=on_terminal, width=width)
    with _stop_signal() as stopped:
        engine.run(jobs, progress, lambda: bool(stopped))
    progress.close()
    return progress.outcomes


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that fills when SIGINT or SIGTERM comes; handlers are put back at the end."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        if not received:
            click.echo("stopping: the runs are saving; run the same command again to carry on", err=True)
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def summarize(outcomes: Mapping[str, Outcome], echo: Callable[[str], None]) -> int:
    """Print the counts and every failure with its last error; return the exit status."""
    counts = Counter(outcome.state for outcome in outcomes.values())
    echo(", ".join(f"{counts[state]} {state.value}" for state in State if counts[state]) or "nothing to run")
    failures = [outcome for outcome in outcomes.values() if outcome.state is State.FAILED]
    if failures:
        echo("failed for good:")
    for outcome in failures:
        echo(f"  {outcome.id}: {outcome.message}")
    if counts[State.STOPPED]:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failures else 0


@click.command(context_settings={"show_default": True})
@click.argument("table")
@click.option("--only", default="", help="Cells to run, such as 'model=CONV,dataset=mnist' or 'method=IBP|CROWN'.")
@click.option("--scale", type=float, default=1.0, help="Part of each schedule to run, in (0, 1].")
@click.option("--seeds", type=int, help="How many seeds, instead of the table's.")
@click.option("--limit-train", type=int, help="Training images per run, a stratified part.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="A trainer option in every run, such as lr=2e-3.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), help="Folder of all tables' runs.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the data sets.")
@click.option("--device", help="Passed on to the trainer.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", help="Where the runs are carried out.")
@click.option("--jobs", type=click.IntRange(1), help="Runs at a time on this machine; by default what its cores or GPUs hold.")
@click.option("--cpus", type=click.IntRange(1), default=1, help="Cores, and threads, per run.")
@click.option("--gpus", type=click.FloatRange(0), help="GPUs per run; 0.25 puts four on one. Default 1 where there are GPUs.")
@click.option("--retries", type=click.IntRange(0), default=3, help="More attempts after a cause that may pass.")
@click.option("--address", help="Ray: address of the cluster; by default a local one is started.")
@click.option("--gather", is_flag=True, help="Ray: the nodes do not share --out; bring results back through Ray.")
@click.option("--dry-run", is_flag=True, help="Print the runs and stop.")
@click.option("--debug", is_flag=True, help="Show a traceback for errors.")
def command(debug: bool, **options: object) -> int:
    """Run TABLE (table1 … table4, or a .toml file of your own)."""
    del debug  # read where errors become exit codes
    return run_table(**options)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, "python -m experiments.run")


def run_table(
    table: str,
    *,
    only: str = "",
    scale: float = 1.0,
    seeds: int | None = None,
    limit_train: int | None = None,
    changes: Sequence[str] = (),
    out: Path = Path("runs"),
    data_dir: Path | None = None,
    device: str | None = None,
    engine: str = "local",
    jobs: int | None = None,
    cpus: int = 1,
    gpus: float | None = None,
    retries: int = 3,
    address: str | None = None,
    gather: bool = False,
    dry_run: bool = False,
    commands: Commands = Commands(),
    pause: float = 5.0,
) -> int:
    """What the command line does; returns the exit status.  `pause`: see `LocalEngine`."""
    loaded = change(load_table(table), changes)
    runs = expand(loaded, only=parse_only(only, loaded) if only else None, scale=scale, seeds=seeds, limit_train=limit_train)
    planned = [make_job(run, out.absolute(), commands, data_dir=data_dir, device=device, threads=cpus) for run in runs]
    if dry_run:
        for job in planned:
            state = "finished" if job.place.is_finished() else "begun" if job.place.folder.exists() else "to run"
            click.echo(f"{state:8} {job.id}: {' '.join(job.train)}")
        click.echo(f"{len(planned)} runs")
        return 0
    if engine == "ray":
        from experiments.ray_engine import RayEngine  # an optional extra: only those who ask for it need it

        chosen: Engine = RayEngine(cpus=cpus, gpus=gpus or 0.0, retries=retries, address=address, gather=gather)
    else:
        if gpus is None:
            gpus = 1.0 if device != "cpu" and _gpu_names() else 0.0
        chosen = LocalEngine(local_slots(jobs, cpus, gpus), retries=retries, pause=pause)
    outcomes = run_jobs(planned, chosen)
    return summarize(outcomes, click.echo)


if __name__ == "__main__":
    sys.exit(main())
