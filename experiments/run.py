"""Command line: run a table, on this machine or on a Ray cluster.

    python -m experiments.run table2 --only 'model=CONV,dataset=mnist' --scale 0.05

Each run is a `python -m plugin.train` in a folder of its own.  Asking again carries on: what is finished is skipped,
what was interrupted is resumed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from experiments.runner.engines import Engine, LocalEngine
from experiments.runner.grid import expand
from experiments.runner.jobs import PROGRAMS, Commands, make_job
from experiments.runner.only import parse_only
from experiments.runner.progress import Progress
from experiments.runner.slots import gpu_names, local_slots
from experiments.runner.table_file import change, load_table
from experiments.runner.worker import Job, Outcome, State
from newrelax.cli import debug_option, run_command
from plugin.process.interrupt import StopRequest

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def run_jobs(jobs: Sequence[Job], engine: Engine) -> Mapping[str, Outcome]:
    """Carry out jobs with progress on the console; the first Ctrl-C or SIGTERM ends them gently, a second one leaves.

    Returns each job's outcome by id.
    """
    with StopRequest() as request:

        def stop() -> bool:
            return request.signal is not None

        with Progress(len(jobs), stop) as progress:
            engine.run(jobs, progress, stop)
    return progress.outcomes


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
@debug_option
def command(**options: Any) -> int:
    """Run TABLE (table1 … table4, or a .toml file of your own)."""
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
    commands: Commands = PROGRAMS,
    pause: float = 5.0,
) -> int:
    """What the command line does; returns the exit status.  `pause`: see `LocalEngine`."""
    loaded = change(load_table(table), changes)
    runs = expand(loaded, only=parse_only(only, loaded) if only else None, scale=scale, seeds=seeds, limit_train=limit_train)
    planned = [make_job(run, out.absolute(), commands, data_dir=data_dir, device=device, threads=cpus) for run in runs]
    if dry_run:
        for job in planned:
            state = "finished" if job.is_finished() else "begun" if job.place.folder.exists() else "to run"
            click.echo(f"{state:8} {job.id}: {' '.join(job.train)}")
        click.echo(f"{len(planned)} runs")
        return 0
    if engine == "ray":
        from experiments.runner.ray_engine import RayEngine  # an optional extra: only those who ask for it need it

        chosen: Engine = RayEngine(cpus=cpus, gpus=gpus or 0.0, retries=retries, address=address, gather=gather)
    else:
        if gpus is None:
            gpus = 1.0 if device != "cpu" and gpu_names() else 0.0
        chosen = LocalEngine(local_slots(jobs, cpus, gpus), retries=retries, pause=pause)
    outcomes = run_jobs(planned, chosen)
    return summarize(outcomes, click.echo)


if __name__ == "__main__":
    sys.exit(main())
