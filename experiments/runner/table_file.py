"""Table files: TOML read and checked, so that a file that says something else than it means is refused."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator

from experiments.runner.grid import Analysis, Decision, Layout, Override, Protocol, Run, Table, expand
from experiments.runner.options import Scalar, options, read_options
from newrelax.errors import UserError
from newrelax.registry import Registry
from plugin.certification.certifiers.ladder import Ladder
from plugin.settings.table import Table as Settings
from plugin.settings.table import refuse_unknown, setting

TABLES = Path(__file__).parents[1] / "tables"


def _seeds(value: Any) -> tuple[int, ...]:
    seeds = range(value) if type(value) is int else value
    whole = isinstance(seeds, list | range) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"expected a number of seeds or a list of different seeds, got {value!r}")
    return tuple(seeds)


def _scalars(value: Any) -> tuple[Scalar, ...]:
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, str | int | float | bool):
            raise ValueError(f"expected texts, numbers or booleans, got {each!r}")
    return tuple(values)


def _list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Section = dict[str, Any]
Axes = dict[str, Annotated[tuple[Scalar, ...], PlainValidator(_scalars)]]


class Sheet(Settings):
    """The keys of a table file."""

    title: str = setting("One line, shown above the report.", "")
    seeds: Annotated[tuple[int, ...], PlainValidator(_seeds)] = setting("A number n (seeds 0 … n−1), or a list of seeds.", (0,))
    options: Section = setting("Trainer options of all runs. In a text, `{axis}` is the run's value of that axis.", {})
    grid: Annotated[list[Axes], BeforeValidator(_list)] = setting(
        "Lists, expanded as a product; `[[grid]]` several times: the products one after another.", []
    )
    override: list[Section] = setting("`where` and `options` for the runs that it selects; later ones win.", [])
    analyze: Annotated[list[Section], BeforeValidator(_list)] = setting(
        "Relaxations whose properties are measured, on which network (see `Analysis`); `[[analyze]]` for several.", []
    )
    decide: Section | None = setting("How the test examples of every trained network are decided (see `Decision`).", None)
    report: Section = setting("How the report arranges the figures (see `Layout`).", {})


class OverrideSection(Settings):
    """The keys of an `[[override]]`."""

    where: Axes = setting("Axis = value, or a list of values.", {})
    options: Section = setting("Trainer options of the runs with these values.", {})


class AnalyzeSection(Settings):
    """The keys of `[analyze]`."""

    methods: tuple[str, ...] = setting("The relaxations to measure; default: those of the first [[analyze]].", ())
    network: Section = setting("Trainer options of the network that they are measured on.", {})
    protocol: Section = setting("How much is measured, where it is not what plugin.analyze measures by default.", {})


def table_names() -> list[str]:
    """Names of the tables that come with the project."""
    return sorted(path.stem for path in TABLES.glob("*.toml"))


def load_table(spec: str | Path) -> Table:
    """Read a table by name (`table2`) or from a file of the user's own (`sweep.toml`).

    Raises UserError, one line, for a missing file, a damaged one, unknown keys and wrong types.
    """
    path = Path(spec)
    if path.suffix != ".toml":
        path = TABLES / f"{spec}.toml"
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
    """Check a table file's data. Raises UserError that names `place` first, then the section."""
    with _within(place):
        sheet = Sheet.read(data, what="key")
        if not sheet.grid and not sheet.analyze:
            raise UserError("nothing to run: expected a [grid] or an [analyze] section")
        axes = {axis for grid in sheet.grid for axis in grid}
        table = Table(
            name=name,
            title=sheet.title or name,
            seeds=sheet.seeds,
            options=_read_options(sheet.options, "[options]"),
            grids=tuple(_read_grid(grid) for grid in sheet.grid),
            overrides=tuple(_read_override(section, axes) for section in sheet.override),
            analyses=_read_analyses(sheet.analyze),
            layout=_read_layout(sheet.report, axes),
            decision=None if sheet.decide is None else _read_decision(sheet.decide, axes),
        )
        _check_templates(table)
        _check_distinct(expand(table))
        _check_ladder(table)
    return table


def change(table: Table, settings: Sequence[str]) -> Table:
    """The table with trainer options put in place of its own, each as `name=value` (`lr=2e-3`).

    They hold for every cell, not for the networks of `[analyze]`.  Raises UserError for an unknown name, a value of
    another type, or an option that is an axis of the table.
    """
    changes: dict[str, Scalar] = {}
    for text in settings:
        name, separator, value = (part.strip() for part in text.partition("="))
        with _within("--set"):
            if not separator or not value:
                raise UserError(f"expected name=value, got {text!r}")
            if name in table.axes:
                raise UserError(f"{table.name} runs over the values of {name}; choose among them with --only {name}=…")
            changes |= read_options({name: value if options().get(name) is str else _read_scalar(value)})
    changed = replace(table, changes=changes)
    with _within("--set"):
        _check_templates(changed)
    return changed


@contextmanager
def _within(place: str) -> Iterator[None]:
    """Errors of the user say where they are."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _read_scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _read_options(values: Mapping[str, Any], section: str) -> dict[str, Scalar]:
    with _within(section):
        return read_options(values)


def _read_grid(grid: Mapping[str, tuple[Scalar, ...]]) -> dict[str, tuple[Scalar, ...]]:
    with _within("[grid]"):
        return {axis: _read_axis(axis, values) for axis, values in grid.items()}


def _read_axis(axis: str, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    if not values or len(set(values)) != len(values):
        raise UserError(f"{axis}: expected different values, got {list(values)!r}")
    if axis in options():
        return tuple(read_options({axis: value})[axis] for value in values)
    if not axis.isidentifier():
        raise UserError(f"axis {axis!r} is no trainer option and can't be used in {{…}}")
    return values


def _read_override(data: Mapping[str, Any], axes: Iterable[str]) -> Override:
    with _within("[[override]]"):
        section = OverrideSection.read(data, what="key")
        refuse_unknown("axis", section.where, axes)
        return Override(where=section.where, options=read_options(section.options))


def _read_analyses(sections: Iterable[Mapping[str, Any]]) -> tuple[Analysis, ...]:
    analyses: list[Analysis] = []
    with _within("[analyze]"):
        for data in sections:
            section = AnalyzeSection.read(data, what="key")
            methods = section.methods or (analyses[0].methods if analyses else ())
            if not methods:
                raise UserError("methods: expected relaxations to measure, got none")
            with _within("protocol"):
                words = {name.replace("-", "_"): value for name, value in section.protocol.items()}
                protocol = Protocol.read(words, what="key")
            analyses.append(Analysis(methods, _read_options(section.network, "network"), protocol))
    return tuple(analyses)


def _read_decision(data: Mapping[str, Any], axes: Iterable[str]) -> Decision:
    with _within("[decide]"):
        if not axes:
            raise UserError("nothing to decide: expected a [grid] of runs")
        return Decision.read(data, what="key")


def _read_layout(data: Mapping[str, Any], axes: Iterable[str]) -> Layout:
    with _within("[report]"):
        layout = Layout.read(data, what="key")
        if len(layout.heatmap) not in (0, 2):
            raise UserError(f"heatmap: expected two axes, vertical then horizontal, got {list(layout.heatmap)!r}")
        refuse_unknown("axis", (*layout.group, *layout.heatmap), axes)
        return layout


def _check_templates(table: Table) -> None:
    """Every axis must change something, and every `{axis}` must be one."""
    groups = [table.options, table.changes, *(override.options for override in table.overrides)]
    texts = [value for group in groups for value in group.values() if isinstance(value, str)]
    try:
        used = {field for text in texts for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise UserError(f"{error} in an option; {{axis}} stands for the axis's value") from error
    for grid in table.grids:
        if idle := [axis for axis in grid if axis not in options() and axis not in used]:
            raise UserError(
                f"[grid]: axis {idle[0]!r} changes nothing: it is neither a trainer option "
                f"({', '.join(options())}) nor used as {{{idle[0]}}} in an option"
            )
    for cell in table.cells():
        try:
            table.resolve(cell)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(f"{{…}} in an option names no axis: {error}; axes: {', '.join(cell)}") from error


def _check_ladder(table: Table) -> None:
    """Told now, not after the training; a certifier from a plugin's file is known only where that is loaded."""
    if table.decision is not None and not any("plugin" in run.options for run in expand(table)):
        with _within("[decide]"):
            Ladder.read(table.decision.ladder, Registry.load(()))


def _check_distinct(runs: Sequence[Run]) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        if run.id in seen:
            raise UserError(f"two runs would share the folder {run.id!r}: {seen[run.id].cell} and {run.cell}")
        seen[run.id] = run
