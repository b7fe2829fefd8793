"""Command-line options from a table of settings: names, types, help and defaults stand in the table alone."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any

import click
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from plugin.settings.config import Config
from plugin.settings.table import Table, limits, traits
from plugin.settings.types import METAVARS

DECIDED_BY_THE_RUNNER = ("seed", "scale", "limit_train", "device", "data_dir")
"""Settings of a run that a sweep's table may not set."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options_of(table: type[Table], *, besides: typing.Collection[str] = ()) -> Decorator:
    """A decorator with an option for each setting of the table, in its order, but for those that a command has `besides`.

    Values arrive as text; `Table.read` reads them, so that Python, files and command lines are checked in one place.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(table.model_fields.items()):
            if name not in besides:
                function = _option(name, field)(function)
        return function

    return decorate


def option_types(table: type[Table] = Config) -> dict[str, type]:
    """What a sweep's table may set: the option's name without dashes before it, and the type that its file holds."""
    names = {name: field for name, field in table.model_fields.items() if name not in DECIDED_BY_THE_RUNNER}
    found = {("plugin" if name == "plugins" else spelt(name)): _file_type(field) for name, field in names.items()}
    return {**found, "loss-fusion": bool, "pgd-steps": int}


def spelt(name: str) -> str:
    """A setting's name as people type it: train_eps is train-eps."""
    return name.replace("_", "-")


def markdown(table: type[Table] = Config) -> str:
    """All settings of a table as a Markdown table: option, range, default, what it is."""
    lines = ["| option | | default | |", "|---|---|---|---|"]
    for name, field in table.model_fields.items():
        option = "plugin" if name == "plugins" else spelt(name)
        lines.append(f"| `--{option}` | {limits(field)} | {_default(field)} | {field.description} |")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    """The default in words; empty where there is none to tell."""
    said = traits(field).default
    if said is None and not field.is_required() and (field.default or _is_number(field.default)):
        return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    return said or ""


def _option(name: str, field: FieldInfo) -> Decorator:
    text, default = field.description or "", _default(field)
    notes = [part for part in (limits(field), f"default {default}" if default else "") if part]
    help_text = text.removesuffix(".") + (f" ({'; '.join(notes)})." if notes else ".")
    kind = _plain(field)
    if kind is bool:
        return click.option(f"--{spelt(name)}/--no-{spelt(name)}", default=None, help=help_text)
    if typing.get_origin(kind) is typing.Literal:
        choice = click.Choice([str(value) for value in typing.get_args(kind)])
        return click.option(f"--{spelt(name)}", type=choice, default=None, help=help_text)
    return click.option(f"--{spelt(name)}", type=str, metavar=_metavar(field, kind), default=None, help=help_text)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(field: FieldInfo) -> Any:
    """The annotation without None."""
    kind = field.annotation
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        return parts[0] if len(parts) == 1 else str
    return kind


def _metavar(field: FieldInfo, kind: Any) -> str:
    for part in (*field.metadata, *typing.get_args(kind)):
        if isinstance(part, BeforeValidator) and part.func in METAVARS:
            return METAVARS[part.func]
    return {int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")


def _file_type(field: FieldInfo) -> type:
    kind = _plain(field)
    metavar = _metavar(field, kind)
    if metavar == "RADIUS":
        return float
    return kind if kind in (int, float, bool) and metavar in ("INTEGER", "NUMBER", "TEXT") else str
