"""Tables as data: a small TOML file in, a list of training runs out.

A table file names only what differs between its runs; everything else is the trainer's own recipe for the
method, the network and the data set.  Its keys:

`title`      one line, shown above the report.
`seeds`      a number n (seeds 0 … n−1) or a list of seeds.
`[options]`  trainer options shared by all runs.  A text may hold `{axis}`, replaced by the run's value of that axis.
`[grid]`     lists, expanded as a product; `[[grid]]` several times: the products one after another.
`[[override]]`  `where` (axis = value or list of values) and `options` for the runs it selects; later ones win.
`[analyze]`  the networks on which the properties of `methods` are measured (see `Analysis`).
`[report]`   how the report arranges the figures (see `Layout`).
"""

import itertools
import re
import string
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from newrelax.errors import UserError

Scalar = str | int | float | bool
Cell = Mapping[str, Scalar]

# Trainer options a table may set: name in the file -> type.  `--seed`, `--scale`, `--limit-train`, `--out` and
# `--resume` are missing because the runner itself decides on them.
OPTIONS: Mapping[str, type] = {
    "method": str,
    "dataset": str,
    "model": str,
    "eps": float,
    "train-eps": float,
    "eps-start": float,
    "epochs": int,
    "warmup": float,
    "ramp": float,
    "batch-size": int,
    "accumulate": int,
    "optimizer": str,
    "lr": float,
    "l1": float,
    "clip-grad": float,
    "pgd-steps": int,
    "limit-test": int,
    "weights": str,
    "plugin": str,
    "allow-unsound": bool,
}

# The axes that name a run's folder first, without their key: what a reader looks for.
_LEADING_AXES = ("dataset", "model", "method")


@dataclass(frozen=True)
class Override:
    """Trainer options for the runs whose cell agrees with `where` (axis -> allowed values)."""

    where: Mapping[str, tuple[Scalar, ...]]
    options: Mapping[str, Scalar]


@dataclass(frozen=True)
class Analysis:
    """Where the relaxations' properties are measured: networks trained once per seed, then `plugin.analyze`.

    `methods` are the relaxations to measure; `options` the trainer options of the network, never scaled, because
    tightness is defined on a network that is trained to the end.
    """

    methods: tuple[str, ...]
    options: Mapping[str, Scalar]


@dataclass(frozen=True)
class Layout:
    """How a report arranges a table's cells.

    `group`: axes whose values start a new sub-table.  `baseline`: the method every other one is compared with.
    `heatmap`: two axes, vertical then horizontal, drawn as a picture of certified accuracy.
    `properties`: the table whose analysis gives tightness and verdicts (this one when empty and it has `[analyze]`).
    `certified`: the table whose runs give the certified accuracy, for a table that only analyses.
    """

    group: tuple[str, ...] = ()
    baseline: str = ""
    heatmap: tuple[str, ...] = ()
    properties: str = ""
    certified: str = ""


@dataclass(frozen=True)
class Run:
    """One training run: a cell of a table, a seed, and how much of the recipe is run."""

    table: str
    cell: Cell
    seed: int
    options: Mapping[str, Scalar]
    scale: float = 1.0
    limit_train: int | None = None
    analyze: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Folder name, the same for the same cell, seed, scale and limit on every machine."""
        values = [str(self.cell[axis]) for axis in _LEADING_AXES if axis in self.cell]
        values += [f"{axis}={_text(value)}" for axis, value in self.cell.items() if axis not in _LEADING_AXES]
        values += ["network"] if self.analyze else []
        values += [f"seed{self.seed}"]
        values += [f"scale{self.scale:g}"] if self.scale != 1.0 else []
        values += [f"n{self.limit_train}"] if self.limit_train is not None else []
        return re.sub(r"[^A-Za-z0-9.+=_-]", "_", "-".join(values))

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
        }

    def arguments(self) -> list[str]:
        """Arguments of `python -m plugin.train`, without `--out` and `--resume`."""
        arguments: list[str] = []
        for name, value in self.options.items():
            if name == "epochs":  # the trainer shortens its own recipe, not what it is told
                value = max(1, round(int(value) * self.scale))
            if isinstance(value, bool):
                arguments += [f"--{name}"] if value else []
            else:
                arguments += [f"--{name}", _text(value)]
        arguments += ["--seed", str(self.seed)]
        arguments += ["--scale", _text(self.scale)] if self.scale != 1.0 and "epochs" not in self.options else []
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
    analysis: Analysis | None
    layout: Layout

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
        """Trainer options of a cell: shared ones, the cell's own, the overrides', `{axis}` filled in."""
        options = {**self.options, **{axis: value for axis, value in cell.items() if axis in OPTIONS}}
        for override in self.overrides:
            if all(cell.get(axis) in values for axis, values in override.where.items()):
                options.update(override.options)
        filling = {axis: _text(value) for axis, value in cell.items()}
        return {
            name: value.format(**filling) if isinstance(value, str) else value for name, value in options.items()
        }


def table_names() -> list[str]:
    """Names of the tables that come with the project."""
    return sorted(path.stem for path in Path(__file__).parent.glob("table*.toml"))


def load_table(spec: str | Path) -> Table:
    """Read a table by name (`table2`) or from a file of the user's own (`sweep.toml`).

    Raises UserError, one line, for a missing file, a damaged one, unknown keys and wrong types.
    """
    path = Path(spec)
    if path.suffix != ".toml":
        path = Path(__file__).parent / f"{spec}.toml"
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        known = ", ".join(table_names())
        raise UserError(f"no table {str(spec)!r}: known are {known}, or the path of a .toml file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from error
    return parse_table(data, path.stem, str(path))


def parse_table(data: Mapping[str, Any], name: str, place: str) -> Table:
    """Check a table file's data; `place` is named in errors."""
    _known_keys(data, ("title", "seeds", "options", "grid", "override", "analyze", "report"), place)
    grids = _parse_grids(data.get("grid", []), f"{place} [grid]")
    axes = {axis for grid in grids for axis in grid}
    table = Table(
        name=name,
        title=_typed(data.get("title", name), str, f"{place}: title"),
        seeds=_parse_seeds(data.get("seeds", 1), f"{place}: seeds"),
        options=_parse_options(data.get("options", {}), f"{place} [options]"),
        grids=grids,
        overrides=tuple(_parse_override(entry, axes, place) for entry in _typed(data.get("override", []), list, place)),
        analysis=_parse_analysis(data["analyze"], place) if "analyze" in data else None,
        layout=_parse_layout(data.get("report", {}), axes, place),
    )
    if not table.grids and table.analysis is None:
        raise UserError(f"{place}: nothing to run: expected a [grid] or an [analyze] section")
    _check_templates(table, place)
    _check_distinct(expand(table), place)
    return table


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
        Run(table.name, cell, seed, table.resolve(cell), scale, limit_train) for seed in chosen for cell in cells
    ]
    runs = [*(replace(run, limit_train=limit_train) for run in networks), *runs]
    return [run for run in runs if _agrees(run, only)] if only else runs


def parse_only(text: str, table: Table) -> dict[str, tuple[str, ...]]:
    """Read `model=CONV,dataset=mnist`; one key given twice, or `IBP|CROWN`, allows either value.

    Returns axis -> allowed values in lower case.  Raises UserError, with what is known, for an axis or a value
    that no run of the table has.
    """
    wanted: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        axis, separator, value = part.partition("=")
        if not separator or not value:
            raise UserError(f"--only: expected axis=value[,axis=value], got {part!r}")
        wanted[axis.strip()] = (*wanted.get(axis.strip(), ()), *(v.strip().lower() for v in value.split("|")))
    runs = expand(table)
    known = {axis: {str_value for run in runs for str_value in _values(run, axis)} for axis in _filter_axes(runs)}
    for axis, values in wanted.items():
        if axis not in known:
            raise UserError(f"--only: {table.name} has no axis {axis!r}; known: {', '.join(sorted(known))}")
        if missing := [value for value in values if value not in {v.lower() for v in known[axis]}]:
            listing = ", ".join(sorted(known[axis]))
            raise UserError(f"--only: {table.name} has no {axis} {missing[0]!r}; known: {listing}")
    return wanted


def _analysis_runs(table: Table, seeds: Iterable[int]) -> list[Run]:
    if table.analysis is None:
        return []
    options = table.analysis.options
    cell = {axis: options[axis] for axis in _LEADING_AXES if axis in options}
    return [Run(table.name, cell, seed, options, analyze=table.analysis.methods) for seed in seeds]


def _values(run: Run, axis: str) -> tuple[str, ...]:
    if axis == "seed":
        return (str(run.seed),)
    merged = {**run.options, **run.cell}
    return (_text(merged[axis]),) if axis in merged else ()


def _filter_axes(runs: Iterable[Run]) -> set[str]:
    return {"seed"}.union(*({*run.options, *run.cell} for run in runs))


def _agrees(run: Run, only: Mapping[str, Sequence[str]]) -> bool:
    return all(any(value.lower() in allowed for value in _values(run, axis)) for axis, allowed in only.items())


def _text(value: Scalar) -> str:
    """How a value is written on a command line and in a folder's name (0.5, 1e-05, 10, none)."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _typed(value: Any, kind: type, place: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UserError(f"{place}: expected {kind.__name__}, got {type(value).__name__} {value!r}")
    return value


def _known_keys(data: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    if unknown := [key for key in data if key not in known]:
        raise UserError(f"{place}: unknown key {unknown[0]!r}; known: {', '.join(known)}")


def _scalar(value: Any, place: str) -> Scalar:
    if not isinstance(value, (str, int, float, bool)):
        raise UserError(f"{place}: expected a text, number or boolean, got {value!r}")
    return value


def _scalars(value: Any, place: str) -> tuple[Scalar, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(_scalar(entry, place) for entry in values)


def _parse_seeds(value: Any, place: str) -> tuple[int, ...]:
    seeds = range(value) if isinstance(value, int) and not isinstance(value, bool) else _typed(value, list, place)
    checked = tuple(_typed(seed, int, place) for seed in seeds)
    if not checked or len(set(checked)) != len(checked) or min(checked) < 0:
        raise UserError(f"{place}: expected a number of seeds or a list of different seeds, got {value!r}")
    return checked


def _parse_options(data: Any, place: str) -> dict[str, Scalar]:
    _known_keys(_typed(data, dict, place), OPTIONS, place)
    return {name: _typed(value, OPTIONS[name], f"{place} {name}") for name, value in data.items()}


def _parse_grids(data: Any, place: str) -> tuple[dict[str, tuple[Scalar, ...]], ...]:
    grids = []
    for entry in [data] if isinstance(data, dict) else _typed(data, list, place):
        grid = {axis: _scalars(values, f"{place} {axis}") for axis, values in _typed(entry, dict, place).items()}
        for axis, values in grid.items():
            if not values or len(set(values)) != len(values):
                raise UserError(f"{place} {axis}: expected different values, got {list(values)!r}")
            if axis in OPTIONS:
                grid[axis] = tuple(_typed(value, OPTIONS[axis], f"{place} {axis}") for value in values)
            elif not axis.isidentifier():
                raise UserError(f"{place}: axis {axis!r} is no trainer option and can't be used in {{…}}")
        grids.append(grid)
    return tuple(grids)


def _parse_override(data: Any, axes: set[str], place: str) -> Override:
    place = f"{place} [[override]]"
    _known_keys(_typed(data, dict, place), ("where", "options"), place)
    where = _typed(data.get("where", {}), dict, place)
    _known_keys(where, sorted(axes), f"{place} where")
    return Override(
        where={axis: _scalars(value, f"{place} where {axis}") for axis, value in where.items()},
        options=_parse_options(data.get("options", {}), f"{place} options"),
    )


def _parse_analysis(data: Any, place: str) -> Analysis:
    place = f"{place} [analyze]"
    _known_keys(_typed(data, dict, place), ("methods", "network"), place)
    methods = tuple(_typed(name, str, f"{place} methods") for name in _scalars(data.get("methods", []), place))
    if not methods:
        raise UserError(f"{place}: expected methods = [names of relaxations to measure]")
    return Analysis(methods, _parse_options(data.get("network", {}), f"{place} network"))


def _parse_layout(data: Any, axes: set[str], place: str) -> Layout:
    place = f"{place} [report]"
    _known_keys(_typed(data, dict, place), ("group", "baseline", "heatmap", "properties", "certified"), place)
    group, heatmap = (
        tuple(_typed(axis, str, f"{place} {key}") for axis in _scalars(data.get(key, []), f"{place} {key}"))
        for key in ("group", "heatmap")
    )
    if heatmap and len(heatmap) != 2:
        raise UserError(f"{place} heatmap: expected two axes, vertical then horizontal, got {list(heatmap)!r}")
    for axis in (*group, *heatmap):
        if axis not in axes:
            raise UserError(f"{place}: unknown axis {axis!r}; known: {', '.join(sorted(axes))}")
    texts = {key: _typed(data.get(key, ""), str, f"{place} {key}") for key in ("baseline", "properties", "certified")}
    return Layout(group=group, heatmap=heatmap, **texts)


def _check_templates(table: Table, place: str) -> None:
    """Every axis must change something, and every `{axis}` must be one."""
    options = [table.options, *(override.options for override in table.overrides)]
    texts = [value for group in options for value in group.values() if isinstance(value, str)]
    used = {field for text in texts for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    for grid in table.grids:
        if idle := [axis for axis in grid if axis not in OPTIONS and axis not in used]:
            raise UserError(
                f"{place} [grid]: axis {idle[0]!r} changes nothing: it is neither a trainer option "
                f"({', '.join(OPTIONS)}) nor used as {{{idle[0]}}} in an option"
            )
    for cell in table.cells():
        try:
            table.resolve(cell)
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"{place}: {{…}} in an option names no axis: {error}; axes: {', '.join(cell)}") from error


def _check_distinct(runs: Sequence[Run], place: str) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        if run.id in seen:
            raise UserError(f"{place}: two runs would share the folder {run.id!r}: {seen[run.id].cell} and {run.cell}")
        seen[run.id] = run
