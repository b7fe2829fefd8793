"""Table files: TOML read and checked, so that a file that says something else than it means is refused.

Keys of a table file:

`title`      one line, shown above the report.
`seeds`      a number n (seeds 0 … n−1) or a list of seeds.
`[options]`  trainer options shared by all runs.  A text may hold `{axis}`, replaced by the run's value of that axis.
`[grid]`     lists, expanded as a product; `[[grid]]` several times: the products one after another.
`[[override]]`  `where` (axis = value or list of values) and `options` for the runs it selects; later ones win.
`[analyze]`  `methods`, the relaxations whose properties are measured, and `network`, the trainer options of the
             network on which they are (see `Analysis`).
`[report]`   how the report arranges the figures (see `Layout`).
"""

import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.grid import OPTIONS, Analysis, Layout, Override, Run, Scalar, Table, expand
from newrelax.errors import UserError


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


def change(table: Table, settings: Sequence[str]) -> Table:
    """The table with trainer options put in place of its own, each as `name=value` (`lr=2e-3`).

    They hold for every cell, not for the networks of `[analyze]`.  Raises UserError for an unknown name, a value of
    another type, or an option that is an axis of the table.
    """
    changes: dict[str, Scalar] = {}
    for text in settings:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not separator or not value:
            raise UserError(f"--set: expected name=value, got {text!r}")
        if name in table.axes:
            raise UserError(f"--set {name}: {table.name} runs over its values; choose among them with --only {name}=…")
        _known_keys({name: value}, OPTIONS, "--set")
        changes[name] = value if OPTIONS[name] is str else _typed(_read_scalar(value), OPTIONS[name], f"--set {name}")
    changed = replace(table, changes=changes)
    _check_templates(changed, "--set")
    return changed


def _read_scalar(text: str) -> Scalar:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


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
    options = [table.options, table.changes, *(override.options for override in table.overrides)]
    texts = [value for group in options for value in group.values() if isinstance(value, str)]
    try:
        used = {field for text in texts for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise UserError(f"{place}: {error} in an option; {{axis}} stands for the axis's value") from error
    for grid in table.grids:
        if idle := [axis for axis in grid if axis not in OPTIONS and axis not in used]:
            raise UserError(
                f"{place} [grid]: axis {idle[0]!r} changes nothing: it is neither a trainer option "
                f"({', '.join(OPTIONS)}) nor used as {{{idle[0]}}} in an option"
            )
    for cell in table.cells():
        try:
            table.resolve(cell)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(f"{place}: {{…}} in an option names no axis: {error}; axes: {', '.join(cell)}") from error


def _check_distinct(runs: Sequence[Run], place: str) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        if run.id in seen:
            raise UserError(f"{place}: two runs would share the folder {run.id!r}: {seen[run.id].cell} and {run.cell}")
        seen[run.id] = run
