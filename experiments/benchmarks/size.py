"""`python -m experiments.bench size`: how a training step's time and memory grow with batch, width and depth.

Fully connected networks, since their layers are all alike: `depth` hidden layers of `width` neurons on 8×8 images. One
of the three sizes moves at a time, the others stay at BASE. An exponent is the slope of the logarithm of the cost over
the logarithm of the size, by least squares over the three largest sizes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import torch
from matplotlib.figure import Figure
from torch import nn

from experiments.benchmarks.step import Case, Cost, cost
from newrelax.cli import debug_option
from newrelax.document import Grid, Paragraph, markdown
from newrelax.errors import UserError
from plugin.process.device import check_device, default_device, device_name
from plugin.process.files import write_atomically, write_json
from plugin.runs.versions import versions

METHODS = ("natural", "IBP", "CROWN-IBP+fusion", "CROWN-IBP", "hBox", "DeepZ", "CROWN")
BASE = {"batch": 32, "width": 128, "depth": 4}
SIZES: Mapping[str, tuple[int, ...]] = {
    "batch": (8, 16, 32, 64, 128),
    "width": (32, 64, 128, 256, 512),
    "depth": (1, 2, 4, 8, 16),
}
FITTED = 3  # sizes that an exponent is fitted to
MEASURES = {"seconds": ("time", 1e3, "ms"), "memory": ("memory", 2**-20, "MiB")}  # field → name, factor, unit


@dataclass(frozen=True)
class Point:
    """The cost of one method at one size: `axis` is what moved, the others are at the base."""

    method: str
    axis: str
    size: int
    cost: Cost


def network(width: int, depth: int) -> nn.Module:
    """`depth` hidden layers of `width` neurons on 8×8 images, ten classes, the same weights in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Flatten()]
        for before in (64, *(width,) * (depth - 1)):
            layers += [nn.Linear(before, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 10))


def measure(
    methods: Sequence[str],
    device: torch.device,
    *,
    sizes: Mapping[str, Sequence[int]] = SIZES,
    base: Mapping[str, int] = BASE,
    budget: float = 1.0,
    limit: float = 30.0,
) -> list[Point]:
    """Every method at every size; sizes that several axes share are measured once."""
    known: dict[tuple[str, int, int, int], Cost] = {}
    points = []
    for method in methods:
        for axis, values in sizes.items():
            for value in values:
                at = {**base, axis: value}
                key = (method, at["batch"], at["width"], at["depth"])
                if key not in known:
                    case = Case(method, "FC", "digits", at["batch"], 0.01)
                    build = partial(network, at["width"], at["depth"])
                    known[key] = cost(case, device, budget=budget, limit=limit, model=build)
                points.append(Point(method, axis, value, known[key]))
    return points


def exponent(points: Iterable[Point], measure_name: str) -> float | None:
    """The power of the size that the cost grows with, over the largest sizes that were measured; None below two."""
    costs = [(p.size, getattr(p.cost, measure_name)) for p in points]
    pairs: list[tuple[float, float]] = sorted((math.log(size), math.log(value)) for size, value in costs if value)[-FITTED:]
    if len(pairs) < 2:
        return None
    x_mean, y_mean = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    slope: float = sum((x - x_mean) * (y - y_mean) for x, y in pairs) / sum((x - x_mean) ** 2 for x, _ in pairs)
    return slope


def _series(points: Sequence[Point], method: str, axis: str) -> list[Point]:
    return [point for point in points if (point.method, point.axis) == (method, axis)]


def tables(points: Sequence[Point]) -> list[Grid]:
    """Time and memory at each size and their exponents, a table an axis."""
    methods, axes = (list(dict.fromkeys(getattr(p, name) for p in points)) for name in ("method", "axis"))
    grids = []
    for axis in axes:
        sizes = [point.size for point in _series(points, methods[0], axis)]
        lines = []
        for method in methods:
            series = _series(points, method, axis)
            powers = (exponent(series, name) for name in MEASURES)
            row = [method, *(_cell(point.cost) for point in series)]
            lines.append([*row, *("" if power is None else f"{axis}^{power:.1f}" for power in powers)])
        grids.append(Grid.of(["method", *(f"{axis} {value}" for value in sizes), "time ∝", "memory ∝"], lines))
    return grids


def _cell(cost: Cost) -> str:
    if cost.seconds is None or cost.memory is None:
        return cost.note
    return f"{cost.seconds * 1e3:.3g} ms, {cost.memory / 2**20:.3g} MiB"


def draw(points: Sequence[Point], title: str) -> bytes:
    """A PNG: time (above) and memory (below) over each size, both on logarithmic scales."""
    methods, axes = (list(dict.fromkeys(getattr(p, name) for p in points)) for name in ("method", "axis"))
    figure = Figure(figsize=(4 * len(axes), 6.5), layout="constrained")
    grid = figure.subplots(len(MEASURES), len(axes), squeeze=False)
    for panels, (name, (label, factor, unit)) in zip(grid, MEASURES.items(), strict=True):
        for panel, axis in zip(panels, axes, strict=True):
            for method in methods:
                series = [point for point in _series(points, method, axis) if getattr(point.cost, name)]
                values = [getattr(point.cost, name) * factor for point in series]
                panel.plot([point.size for point in series], values, marker="o", markersize=4, label=method)
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel=f"{label} of a step, {unit}")
            ticks = [point.size for point in _series(points, methods[0], axis)]
            panel.set_xticks(ticks, [str(tick) for tick in ticks])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(methods), fontsize=8)
    figure.suptitle(title, fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=72)
    return stream.getvalue()


def write(out: Path, points: Sequence[Point], where: str) -> None:
    """size.md, size.png and size.json."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"--out {out}: {problem.strerror}") from problem
    base = ", ".join(f"{name} {value}" for name, value in BASE.items())
    head = (
        f"A training step (natural and certified loss, Adam) of fully connected networks on 8×8 images; {where}.\n"
        f"One size moves, the others stay at {base}; exponents over the {FITTED} largest sizes that were run."
    )
    write_atomically(out / "size.md", markdown([Paragraph(head), *tables(points)]).encode())
    write_atomically(out / "size.png", draw(points, f"A training step; {where}"))
    results = [asdict(point) for point in points]
    write_json(out / "size.json", {"where": where, "versions": versions(), "base": BASE, "results": results})


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default="runs/bench", show_default=True, help="Folder of size.md, .png."
)
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Names, comma-separated; NAME+fusion.")
@click.option("--device", default=default_device(), show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Of the CPU; default torch's own number.")
@click.option("--budget", type=float, default=1.0, show_default=True, help="Seconds of timed steps a figure.")
@click.option("--limit", type=float, default=30.0, show_default=True, help="Steps that take more seconds are not run.")
@click.option("--where", help="The machine's name in the results; default what it calls itself.")
@debug_option
def size(out: Path, methods: str, device: str, threads: int | None, budget: float, limit: float, where: str | None) -> int:
    """Time and memory of a step against batch, width and depth, with fitted exponents."""
    target = check_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    points: list[Point] = []
    for method in methods.split(","):
        points += measure([method], target, budget=budget, limit=limit)
        write(out, points, where or device_name(target))
        click.echo(f"{method} done", err=True)
    click.echo(markdown(tables(points)), nl=False)
    return 0
