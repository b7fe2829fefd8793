"""Tables as data: a grid of cells, expanded to training runs.

A table names only what differs between its runs; everything else is the trainer's own recipe for the method, the
network and the data set.  `experiments.runner.table_file` reads tables from files.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ConfigDict

from experiments.runner.options import Scalar
from experiments.runner.options import options as trainer_options
from newrelax.errors import UserError
from plugin.certification.certifiers.ladder import DEFAULT as DEFAULT_LADDER
from plugin.settings import table as settings

Cell = Mapping[str, Scalar]

_NO_OFF_SWITCH = ("allow-unsound",)

# The axes that name a run's folder first, without their key: what a reader looks for.
_LEADING_AXES = ("dataset", "model", "method")


@dataclass(frozen=True)
class Override:
    """Trainer options for the runs whose cell agrees with `where` (axis -> allowed values)."""

    where: Mapping[str, tuple[Scalar, ...]]
    options: Mapping[str, Scalar]


class Protocol(settings.Table):
    """How much `plugin.analyze` measures, where it is not its default: `protocol` of an `[analyze]` section."""

    model_config = ConfigDict(strict=True)  # TOML has types

    eps: float | None = settings.setting("Of the probe; default the network's.", None, gt=0)
    probe: int | None = settings.setting("Images of the probe.", None, ge=1)
    budget: int | None = settings.setting("Evaluations for continuity.", None, ge=240)
    single_weights: int | None = settings.setting("Weights tried in each layer.", None, ge=1)
    limit: int | None = settings.setting("Test images for tightness.", None, ge=1)
    eps_step: float | None = settings.setting("Of ε's grid.", None, gt=0, le=1)

    def chosen(self) -> dict[str, int | float]:
        """Option of `plugin.analyze`, without dashes before it, -> value, for those that are set."""
        return {name.replace("_", "-"): value for name, value in self.to_json().items() if value is not None}


@dataclass(frozen=True)
class Analysis:
    """Where the relaxations' properties are measured: networks trained once per seed, then `plugin.analyze`.

    `methods` are the relaxations to measure; `options` the trainer options of the network, never scaled, because
    tightness is defined on a network that is trained to the end.
    """

    methods: tuple[str, ...]
    options: Mapping[str, Scalar]
    protocol: Protocol = field(default_factory=Protocol)


class Decision(settings.Table):
    """How `plugin.evaluate --complete` decides the test examples of every trained network: `[decide]` of a table file."""

    model_config = ConfigDict(strict=True)  # TOML has types

    ladder: str = settings.setting("Certifiers, cheap ones first; each example climbs until it is decided.", DEFAULT_LADDER)
    timeout: float = settings.setting("Seconds an example.", 20.0, gt=0)
    limit: int | None = settings.setting("Only the first test examples; default: all that the run is tested on.", None, ge=1)


class Layout(settings.Table):
    """How a report arranges a table's cells: `[report]` of a table file."""

    group: tuple[str, ...] = settings.setting("Axes whose values start a new sub-table.", ())
    baseline: str = settings.setting("The method that every other one is compared with.", "")
    heatmap: tuple[str, ...] = settings.setting("Two axes, vertical then horizontal, of a picture of certified accuracy.", ())
    properties: str = settings.setting("The table whose analysis gives tightness and verdicts; this one, if it analyses.", "")
    certified: str = settings.setting("The table whose runs give certified accuracy, for one that only analyses.", "")


def file_name(*words: str) -> str:
    """Words as a file's name, without characters that a file system may refuse."""
    return re.sub(r"[^A-Za-z0-9.+=_-]", "_", "-".join(words))


@dataclass(frozen=True)
class Run:
    """One training run: a cell of a table, a seed, and how much of the recipe is run.

    `options` are all the trainer is told; `changes` those of them that a user put in the table's place.
    `decision` is none of the settings: it changes nothing about the network, so that one trained earlier can still be decided.
    """

    table: str
    cell: Cell
    seed: int
    options: Mapping[str, Scalar]
    scale: float = 1.0
    limit_train: int | None = None
    analyze: tuple[str, ...] = ()
    protocol: Protocol = field(default_factory=Protocol)
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    decision: Decision | None = None

    @property
    def id(self) -> str:
        """Folder name, the same for the same cell, seed, scale, limit and changes on every machine."""
        values = [str(self.cell[axis]) for axis in _LEADING_AXES if axis in self.cell]
        values += [f"{axis}={text_of(value)}" for axis, value in self.cell.items() if axis not in _LEADING_AXES]
        values += ["network"] if self.analyze else []
        values += [f"seed{self.seed}"]
        values += [f"scale{self.scale:g}"] if self.scale != 1.0 else []
        values += [f"n{self.limit_train}"] if self.limit_train is not None else []
        values += [f"{name}={text_of(value)}" for name, value in self.changes.items()]
        return file_name(*values)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the run's result, as JSON data: equal settings mean an equal run."""
        return {
            "table": self.table,
            "cell": dict(self.cell),
            "seed": self.seed,
            "options": dict(self.options),
            "scale": self.scale,
            "limit_train": self.limit_train,
            "analyze": list(self.analyze),
            **({"protocol": chosen} if (chosen := self.protocol.chosen()) else {}),
        }

    def arguments(self) -> list[str]:
        """Arguments of `python -m plugin.train`, without `--out` and `--resume`."""
        arguments: list[str] = []
        for name, value in self.options.items():
            if name == "epochs":  # the trainer shortens its own recipe, not what it is told
                value = max(1, round(int(value) * self.scale))
            if isinstance(value, bool):
                off = [] if name in _NO_OFF_SWITCH else [f"--no-{name}"]
                arguments += [f"--{name}"] if value else off
            else:
                arguments += [f"--{name}", text_of(value)]
        arguments += ["--seed", str(self.seed)]
        arguments += ["--scale", text_of(self.scale)] if self.scale != 1.0 and "epochs" not in self.options else []
        arguments += ["--limit-train", str(self.limit_train)] if self.limit_train is not None else []
        return arguments


@dataclass(frozen=True)
class Table:
    """A table file, checked."""

    name: str
    title: str
    seeds: tuple[int, ...]
    options: Mapping[str, Scalar]
    grids: tuple[Mapping[str, tuple[Scalar, ...]], ...]
    overrides: tuple[Override, ...]
    analyses: tuple[Analysis, ...]
    layout: Layout
    changes: Mapping[str, Scalar] = field(default_factory=dict)
    decision: Decision | None = None

    @property
    def analysis(self) -> Analysis | None:
        """The first of the analyses, the one whose properties a report shows; None without any."""
        return self.analyses[0] if self.analyses else None

    @property
    def axes(self) -> tuple[str, ...]:
        """Every axis of every grid, in the file's order."""
        return tuple(dict.fromkeys(axis for grid in self.grids for axis in grid))

    def cells(self) -> Iterator[dict[str, Scalar]]:
        """Every point of the grid, in the file's order."""
        for grid in self.grids:
            for values in itertools.product(*grid.values()):
                yield dict(zip(grid.keys(), values, strict=True))

    def resolve(self, cell: Cell) -> dict[str, Scalar]:
        """Trainer options of a cell: shared ones, the cell's own, the overrides', the changes; `{axis}` filled in."""
        options = {**self.options, **{axis: value for axis, value in cell.items() if axis in trainer_options()}}
        for override in self.overrides:
            if all(cell.get(axis) in values for axis, values in override.where.items()):
                options.update(override.options)
        options.update(self.changes)
        filling = {axis: text_of(value) for axis, value in cell.items()}
        return {name: value.format(**filling) if isinstance(value, str) else value for name, value in options.items()}


def expand(
    table: Table,
    *,
    only: Mapping[str, Sequence[str]] | None = None,
    scale: float = 1.0,
    seeds: int | None = None,
    limit_train: int | None = None,
) -> list[Run]:
    """Every run of a table; all cells with the first seed come first, so that an early look shows a whole table.

    `only`: from `parse_only`.  `scale` in (0, 1]: part of each schedule that is run.  `seeds`: how many instead of
    the file's.  `limit_train`: training images per run.  Raises UserError when one is out of range.
    """
    if not 0.0 < scale <= 1.0:
        raise UserError(f"scale: expected a number in (0, 1], got {scale:g}")
    if seeds is not None and seeds < 1:
        raise UserError(f"seeds: expected at least 1, got {seeds}")
    if limit_train is not None and limit_train < 1:
        raise UserError(f"limit-train: expected at least 1, got {limit_train}")
    chosen = table.seeds if seeds is None else tuple(range(seeds))
    networks = _analysis_runs(table, chosen)
    cells = list(table.cells())
    runs = [
        Run(table.name, cell, seed, table.resolve(cell), scale, limit_train, changes=table.changes, decision=table.decision)
        for seed in chosen
        for cell in cells
    ]
    runs = [*(replace(run, limit_train=limit_train) for run in networks), *runs]
    return [run for run in runs if _agrees(run, only)] if only else runs


def _analysis_runs(table: Table, seeds: Iterable[int]) -> list[Run]:
    return [
        Run(
            table.name,
            {axis: analysis.options[axis] for axis in _LEADING_AXES if axis in analysis.options},
            seed,
            analysis.options,
            analyze=analysis.methods,
            protocol=analysis.protocol,
        )
        for seed in seeds
        for analysis in table.analyses
    ]


def values_of(run: Run, axis: str) -> tuple[str, ...]:
    """A run's value of an axis or option, as text; none where it has no such axis."""
    if axis == "seed":
        return (str(run.seed),)
    merged = {**run.options, **run.cell}
    return (text_of(merged[axis]),) if axis in merged else ()


def _agrees(run: Run, only: Mapping[str, Sequence[str]]) -> bool:
    return all(any(value.lower() in allowed for value in values_of(run, axis)) for axis, allowed in only.items())


def text_of(value: Scalar) -> str:
    """How a value is written on a command line and in a folder's name (0.5, 1e-05, 10, none)."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)
