"""`python -m experiments.bench gpu`: steps per second and peak memory of each method on a GPU, with and without capture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch

from experiments.benchmarks.step import Case, Cost, cost
from newrelax.cli import debug_option
from newrelax.document import Block, Grid, Paragraph, markdown
from newrelax.errors import UserError
from plugin.process.device import check_device, device_name
from plugin.process.files import write_atomically, write_json
from plugin.runs.versions import versions

METHODS = ("natural", "IBP", "CROWN-IBP", "CROWN-IBP+fusion", "CROWN", "DeepZ", "hBox")
NETWORKS = (
    Case("", "CONV", "mnist", 100, 0.3),
    Case("", "CONV", "mnist", 1000, 0.3),
    Case("", "CNN7", "cifar10", 128, 8 / 255),
    Case("", "CNN7", "cifar10", 512, 8 / 255),
)


def measure(
    networks: Iterable[Case],
    methods: Sequence[str],
    device: torch.device,
    *,
    budget: float,
    limit: float,
    captures: Sequence[bool],
) -> Iterator[tuple[Case, Cost]]:
    """Every method on every network, each with every value of `captures`, as they are found."""
    for network in networks:
        for method in methods:
            for capture in captures:
                case = replace(network, method=method, capture=capture)
                yield case, cost(case, device, budget=budget, limit=limit)


def table(found: Iterable[tuple[Case, Cost]]) -> list[Block]:
    """A row for each method on each network, plain and captured side by side, and what the paper's recipe would take."""
    rows: dict[Case, dict[bool, Cost]] = {}
    for case, what in found:
        rows.setdefault(replace(case, capture=False), {})[case.capture] = what
    head = ["network", "batch", "method", "steps/s", "peak memory, MiB", "captured, steps/s", "peak memory, MiB", "speed-up"]
    lines = []
    for case, sides in rows.items():
        plain, captured = sides.get(False, Cost()), sides.get(True, Cost())
        ratio = f"{plain.seconds / captured.seconds:.1f}×" if plain.seconds and captured.seconds else ""
        row = [f"{case.model}, {case.shape} shape", str(case.batch_size), case.method]
        lines.append([*row, *_cells(plain), *_cells(captured), ratio])
    return [Grid.of(head, lines), *_recipe(rows)]


def _recipe(rows: Mapping[Case, Mapping[bool, Cost]]) -> Iterator[Paragraph]:
    """How long the paper's CROWN-IBP recipe on MNIST would take: an upper limit, its first and last phases are cheaper."""
    for case, sides in rows.items():
        if (case.method, case.model, case.shape, case.batch_size) == ("CROWN-IBP", "CONV", "mnist", 100):
            fastest = min((cost.seconds for cost in sides.values() if cost.seconds), default=None)
            if fastest is not None:
                minutes = 200 * 600 * fastest / 60
                yield Paragraph(f"200 epochs of 600 CROWN-IBP steps at the fastest of these rates: {minutes:.1f} minutes.")


def _cells(what: Cost) -> tuple[str, str]:
    if what.seconds is None or what.memory is None:
        return what.note, ""
    return f"{1 / what.seconds:.1f}", f"{what.memory / 2**20:.0f}"


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="runs/bench", show_default=True, help="Folder of gpu.md, .json."
)
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Names, comma-separated; NAME+fusion.")
@click.option("--device", default="cuda", show_default=True, help="cuda or cuda:N.")
@click.option("--budget", type=float, default=3.0, show_default=True, help="Seconds of timed steps a figure.")
@click.option("--limit", type=float, default=20.0, show_default=True, help="Steps that take more seconds are not run.")
@debug_option
def gpu(out: Path, methods: str, device: str, budget: float, limit: float) -> int:
    """Steps per second and peak memory on a GPU, with and without --capture."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        raise UserError(f"--device {device}: this benchmark needs a CUDA device; the suite and size run on a CPU")
    target = check_device(device)
    found: list[tuple[Case, Cost]] = []
    for case, what in measure(NETWORKS, methods.split(","), target, budget=budget, limit=limit, captures=(False, True)):
        side = " captured" if case.capture else ""
        click.echo(f"{case.model} {case.batch_size} {case.method}{side}: {_cells(what)[0]}", err=True)
        found.append((case, what))
        write(out, found, target)
    click.echo(markdown(table(found)), nl=False)
    return 0


def write(out: Path, found: Sequence[tuple[Case, Cost]], device: torch.device) -> None:
    """gpu.md and gpu.json: the figures with the names of the GPU, torch and CUDA."""
    where = {"device": device_name(device), "cuda": torch.version.cuda, **versions()}
    head = ", ".join(f"{name} {version}" if name != "device" else str(version) for name, version in where.items())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"--out {out}: {problem.strerror}") from problem
    write_atomically(out / "gpu.md", markdown([Paragraph(f"Training steps on {head}."), *table(found)]).encode())
    results = [{**asdict(case), **asdict(what)} for case, what in found]
    write_json(out / "gpu.json", {"where": where, "results": results})
