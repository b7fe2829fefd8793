"""What a table's finished runs say, cell by cell: the data of a report, without its looks."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.reporting.curves import curve, mean_curve
from experiments.reporting.paper import PaperFigure, find_paper_figure
from experiments.runner.grid import Cell, Decision, Run, Table, expand
from experiments.runner.options import Scalar
from experiments.runner.store import Place, places, read_json


@dataclass(frozen=True)
class Figure:
    """A quantity over seeds, in percent."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation (n − 1); None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Row:
    """One cell of a table: what its finished runs gave.

    `natural`, `pgd`, `certified`: None when no run is finished.  `estimated`: in place of `certified` when the bounds
    are not sound.  `exact`, `undecided`: what a ladder verified and left open, over the seeds that have `verdicts`;
    `unsettled`: those that the table decides and that have none yet.  `scale`, `limit_train`, `changes`: how much of the
    recipe was run, and what in its place.  `failures`: seed -> last error of the runs that failed; `missing`: seeds without
    a result.
    `curve`: (part of training, certified share in percent) per epoch, on the training batches, at the epoch's ε, mean over
    the seeds.
    """

    cell: Cell
    options: Mapping[str, Scalar]
    natural: Figure | None = None
    pgd: Figure | None = None
    certified: Figure | None = None
    estimated: Figure | None = None
    exact: Figure | None = None
    undecided: Figure | None = None
    scale: float = 1.0
    limit_train: int | None = None
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)
    results: tuple[Mapping[str, Any], ...] = ()
    verdicts: tuple[Mapping[str, Any], ...] = ()
    unsettled: tuple[int, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    paper: PaperFigure | None = None

    @property
    def worst(self) -> Figure | None:
        """The certified accuracy, or what stands in its place."""
        return self.certified or self.estimated

    @property
    def difference(self) -> float | None:
        """Measured minus paper's certified accuracy, in percentage points; None where either is missing."""
        if self.certified is None or self.paper is None or self.paper.certified is None:
            return None
        return self.certified.mean - self.paper.certified

    @property
    def shortened(self) -> tuple[str, ...]:
        """How the recipe was shortened, to stand as small print to the row's figures; empty when it was not.

        `×0.05`: the part of the recipe's epochs; `n 2,000`: training images; `test 500`: test images; `lr 0.002`:
        what `--set` put in the recipe's place.
        """
        parts = [f"×{self.scale:g}"] if self.scale != 1.0 else []
        parts += [f"n {self.limit_train:,}"] if self.limit_train is not None else []
        parts += [f"test {self.options['limit-test']:,}"] if "limit-test" in self.options else []
        parts += [f"{name} {value}" for name, value in self.changes.items() if name != "limit-test"]
        return tuple(parts)

    @property
    def small_print(self) -> tuple[str, ...]:
        """How the recipe was shortened, its epochs, unless a change gives them, and the seeds: `10 epochs`, `1 of 2 seeds`."""
        epochs = dict.fromkeys(str(result["epochs"]) for result in self.results if "epochs" in result)
        parts = [f"{'/'.join(epochs)} epochs"] if epochs and "epochs" not in self.changes else []
        wanted = len(self.seeds) + len(self.missing)
        count = f"{wanted}" if not self.missing else f"{len(self.seeds)} of {wanted}"
        return (*self.shortened, *parts, f"{count} seed{'s' if wanted > 1 else ''}")


@dataclass(frozen=True)
class Variant:
    """How much of the recipe a set of runs runs."""

    scale: float
    limit_train: int | None

    @property
    def size(self) -> tuple[float, float]:
        """Larger is nearer to the paper's recipe."""
        return self.scale, float("inf") if self.limit_train is None else self.limit_train


def collect_rows(
    table: Table,
    out: Path,
    *,
    seeds: int | None = None,
    only: Mapping[str, Sequence[str]] | None = None,
    variant: Callable[[Variant], bool] | None = None,
) -> list[Row]:
    """One row per cell, in the table's order, missing ones included.

    Where a cell was run at several scales or limits, the one nearest to the full recipe that has a result counts;
    `variant`, a predicate on `Variant`, narrows the choice.  Runs whose settings are not the table's any more are
    left out.
    """
    started: dict[str, list[Place]] = defaultdict(list)
    for place in places(out / table.name):
        settings = place.read_settings() or {}
        if not settings.get("analyze"):
            started[_key(settings.get("cell", {}), settings.get("options", {}))].append(place)
    wanted = [run for run in expand(table, seeds=seeds, only=only) if not run.analyze]
    by_cell: dict[str, list[Run]] = defaultdict(list)
    for run in wanted:
        by_cell[_key(run.cell, run.options)].append(run)
    return [_collect_row(runs, started[key], variant) for key, runs in by_cell.items()]


def timings(table: Table, out: Path) -> list[dict[str, Any]]:
    """Per finished run: what it took and on what.  Apart from the report, because no two times are equal."""
    found = []
    for place in places(out / table.name):
        if result := place.read_result():
            record = {name: result.get(name) for name in ("seconds", "evaluation_seconds", "epochs", "steps", "device")}
            found.append({"run": place.id, **record})
    return found


def _key(cell: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    return repr((sorted(cell.items(), key=str), sorted(options.items(), key=str)))


def _collect_row(runs: Sequence[Run], started: Iterable[Place], variant: Callable[[Variant], bool] | None) -> Row:
    chosen: dict[Variant, list[Place]] = defaultdict(list)
    for place in started:
        settings = place.read_settings() or {}
        found = Variant(settings["scale"], settings["limit_train"])
        if settings["seed"] in {run.seed for run in runs} and (variant is None or variant(found)):
            chosen[found].append(place)
    row = Row(runs[0].cell, runs[0].options, changes=runs[0].changes, paper=find_paper_figure(runs[0].options))
    wanted = tuple(run.seed for run in runs)
    if not chosen:
        return replace(row, missing=wanted)
    best = max(chosen, key=lambda entry: (any(place.read_result() for place in chosen[entry]), entry.size))
    return _fill(replace(row, scale=best.scale, limit_train=best.limit_train), chosen[best], wanted, runs[0].decision)


def _fill(row: Row, runs: Sequence[Place], wanted: tuple[int, ...], decision: Decision | None) -> Row:
    results: dict[int, dict[str, Any]] = {}
    failures: dict[int, str] = {}
    verdicts: dict[int, dict[str, Any]] = {}
    curves = []
    for place in runs:
        seed = (place.read_settings() or {})["seed"]
        if result := place.read_result():
            results[seed] = result
            curves.append(curve(place.read_metrics()))
        if decision and (verdict := place.read_verdicts(decision)):
            verdicts[seed] = verdict
        is_finished = seed in (results if decision is None else verdicts)
        if not is_finished and (failure := read_json(place.note("failure.json"))):
            failures[seed] = str(failure.get("message"))
    seeds = tuple(sorted(results))
    ordered = [results[seed] for seed in seeds]
    decided = [verdicts[seed] for seed in seeds if seed in verdicts]
    sound = all(result.get("sound", True) for result in ordered)
    return replace(
        row,
        natural=_figure(ordered, "natural_accuracy"),
        pgd=_figure(ordered, "pgd_accuracy"),
        certified=_figure(ordered, "certified_accuracy") if sound else None,
        estimated=None if sound else _figure(ordered, "estimated_accuracy"),
        exact=_figure(decided, "verified"),
        undecided=_figure(decided, "undecided"),
        seeds=seeds,
        missing=tuple(seed for seed in wanted if seed not in results),
        failures=dict(sorted(failures.items())),
        results=tuple(ordered),
        verdicts=tuple(decided),
        unsettled=() if decision is None else tuple(seed for seed in seeds if seed not in verdicts),
        curve=mean_curve(curves),
    )


def _figure(results: Iterable[Mapping[str, Any]], name: str) -> Figure | None:
    values = tuple(100.0 * result[name] for result in results if result.get(name) is not None)
    return Figure(values) if values else None
