"""The trainer's options that a table may set, and their values read from a table file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ConfigDict, create_model

from plugin.settings.options import option_types
from plugin.settings.table import Table as Settings

Scalar = str | int | float | bool


@cache
def options() -> Mapping[str, type]:
    """Name, as on the command line without dashes in front -> type. Those on which the runner decides are missing."""
    return option_types()


def read_options(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Trainer options of a table file, checked, in the file's order.

    Raises UserError for a name that is no option, with the nearest that are, and for a value of another type.
    """
    read = _table_of_options().read(values, what="trainer option")
    return {name: getattr(read, name) for name in values}


class _Strict(Settings):
    """TOML has types: a text is no number, a boolean no integer."""

    model_config = ConfigDict(strict=True)


@cache
def _table_of_options() -> type[_Strict]:
    fields: dict[str, Any] = {name: (kind, None) for name, kind in options().items()}
    return create_model("TrainerOptions", __base__=_Strict, **fields)
